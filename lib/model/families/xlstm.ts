// xLSTM of the 7B form: blocks of an mLSTM and a SwiGLU, soft caps on gates and logits. Layout: transformers
// models/xlstm/modeling_xlstm.py.
import { checkWidth, KvLayout, StateLayout } from '../../layers/layer';
import { GatedMlp } from '../../layers/mlp';
import { Mlstm, type MlstmOptions, type MlstmSizes } from '../../layers/mlstm';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel } from '../language-model';
import type { Part, WeightSource } from '../weights';
import type { Family, Plan } from './family';
import { embeddingAndHead, vector } from './parts';

interface Sizes {
  hidden: number;
  inner: number;
  vocabulary: number;
  layers: number;
  tied: boolean;
  eps: number;
  logitCap: number;
  mixer: MlstmSizes & MlstmOptions;
  /** Matrices that share an input are stored as one. */
  fused: boolean;
}

/** A size that the config may hold under two names, which must agree. */
function sizeOf(config: Config, kind: 'size' | 'count', name: string, other: string, fallback: number): number {
  const value = config.get(kind, name, config.get(kind, other, fallback));
  return config.only(other, value);
}

function readSizes(config: Config): Sizes {
  const number = (name: string, fallback: number) => config.get('number', name, fallback);
  config.only('use_bias', false);
  config.only('add_out_norm', true);
  // Of the released checkpoint, whose config was written before transformers had the family.
  config.only('add_post_blocks_norm', true);
  config.only('add_post_norm', false);
  config.only('add_qk_norm', false);
  config.ignore('add_embedding_dropout', 'add_forward_backend_padding', 'force_bos_token_insert');
  config.ignore('forward_backend_name', 'step_backend_name', 'igate_bias_init_range', 'mlstm_round_up_to_multiple_of');
  // How it is computed there.
  config.ignore(...bookkeeping, 'eos_token_id', 'chunkwise_kernel', 'sequence_kernel', 'step_kernel', 'mode');
  config.ignore('chunk_size', 'max_inference_chunksize', 'autocast_kernel_dtype', 'inference_state_dtype');
  config.ignore('norm_reduction_force_float32', 'return_last_states');
  const hidden = sizeOf(config, 'size', 'hidden_size', 'embedding_dim', 4096);
  const heads = config.get('count', 'num_heads', 8);
  const eps = number('norm_eps', 1e-6);
  config.only('cell_norm_eps', eps);
  const widthOf = (field: string, fallback: number): number => {
    const width = Math.trunc(hidden * number(field, fallback)) / heads;
    checkWidth(config.where, `hidden_size x ${field} / num_heads`, width, 512);
    return width;
  };
  const mixer = {
    heads,
    keyWidth: widthOf('qk_dim_factor', 0.5),
    valueWidth: widthOf('v_dim_factor', 1),
    gateCap: number('gate_soft_cap', 15),
    eps: number('eps', 1e-6),
    normEps: eps,
  };
  config.only('head_dim', mixer.valueWidth);
  const multiple = config.get('size', 'ffn_round_up_to_multiple_of', 64);
  const sizes = {
    hidden,
    inner: multiple * Math.floor((hidden * number('ffn_proj_factor', 2.667) + multiple - 1) / multiple),
    vocabulary: config.get('size', 'vocab_size', 50304),
    layers: sizeOf(config, 'count', 'num_hidden_layers', 'num_blocks', 32),
    tied: config.get('boolean', 'tie_word_embeddings', false),
    eps,
    logitCap: number('output_logit_soft_cap', 30),
    mixer,
    fused: config.only('weight_mode', 'single', 'fused') === 'fused',
  };
  for (const name of ['gate_soft_cap', 'output_logit_soft_cap']) {
    if (number(name, 1) <= 0) throw config.bad(name, 'more than 0', config.raw(name));
  }
  config.finish();
  return sizes;
}

async function mlstm(source: WeightSource, { hidden, mixer, fused }: Sizes, name: string, state: StateLayout) {
  const { heads, keyWidth, valueWidth } = mixer;
  const [keys, values] = [heads * keyWidth, heads * valueWidth];
  const part = (tensor: string, out: number): Part => ({ name: `${name}${tensor}.weight`, out });
  const own = { q: keys, k: keys, v: values, ogate_preact: values, igate_preact: heads, fgate_preact: heads };
  const together = { qkv_opreact: 2 * keys + 2 * values, ifgate_preact: 2 * heads };
  const biases = fused ? { ifgate_preact: 2 * heads } : { igate_preact: heads, fgate_preact: heads };
  const weights = {
    input: await source.linear(
      Object.entries(fused ? together : own).map(([tensor, out]) => part(tensor, out)),
      hidden,
    ),
    gateBias: await source.values(
      Object.entries(biases).map(([tensor, out]) => ({ name: `${name}${tensor}.bias`, stored: [out] })),
      [2 * heads],
    ),
    norm: await vector(source, `${name}multihead_norm.weight`, values),
    output: await source.linear([part('out_proj', hidden)], values),
  };
  return new Mlstm(mixer, weights, mixer, state, name);
}

async function feedForward(source: WeightSource, { hidden, inner, fused }: Sizes, name: string) {
  const part = (tensor: string, out: number): Part => ({ name: `${name}${tensor}.weight`, out });
  const up = fused ? [part('proj_up_gate_z', 2 * inner)] : [part('proj_up_gate', inner), part('proj_up', inner)];
  const gateUp = await source.linear(up, hidden);
  return new GatedMlp(gateUp, await source.linear([part('proj_down', hidden)], inner));
}

async function build(source: WeightSource, sizes: Sizes, where: Config): Promise<LanguageModel> {
  const { hidden, logitCap } = sizes;
  const state = new StateLayout();
  const ends = await embeddingAndHead(source, where, { ...sizes, embedding: 'backbone.embeddings.weight' });
  const branches: Branch[] = [];
  for (let i = 0; i < sizes.layers; i++) {
    const block = `backbone.blocks.${i}.`;
    const mixerNorm = await vector(source, `${block}norm_mlstm.weight`, hidden);
    branches.push({ norm: mixerNorm, layer: await mlstm(source, sizes, `${block}mlstm_layer.`, state) });
    const norm = await vector(source, `${block}norm_ffn.weight`, hidden);
    branches.push({ norm, layer: await feedForward(source, sizes, `${block}ffn.`) });
  }
  const norm = await vector(source, 'backbone.out_norm.weight', hidden);
  const kind = { activations: source.activations, normEps: sizes.eps, zeroCentred: false, logitCap };
  return new LanguageModel({ ...ends, branches, norm, ...kind, state, kv: new KvLayout() });
}

export const xlstm: Family = {
  modelTypes: ['xlstm'],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [2];
    const sizes = readSizes(config);
    return {
      family: 'xlstm',
      stopIds,
      contextLength: 2 ** 20, // no position is encoded
      ignored: /^$/,
      build: (source) => build(source, sizes, config),
    };
  },
};
