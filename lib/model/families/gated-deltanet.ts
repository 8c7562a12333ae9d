// Gated DeltaNet in the layout of flash-linear-attention (model_type gated_deltanet), with or without sliding-window
// softmax layers. Layout: fla models/gated_deltanet, fla layers/gated_deltanet.py and layers/attn.py.
import { Attention, inverseFrequencies } from '../../layers/attention';
import { GatedDeltaNet } from '../../layers/gated-delta-net';
import { checkWidth, KvLayout, type Layer, StateLayout } from '../../layers/layer';
import { bookkeeping, type Config } from '../config';
import { type Block, LanguageModel } from '../language-model';
import type { WeightSource } from '../weights';
import type { Family, Plan } from './family';
import { embeddingAndHead, gatedMlp, vector } from './parts';

interface SoftmaxSizes {
  layers: ReadonlySet<number>;
  heads: number;
  kvHeads: number;
  width: number;
  window: number;
  theta: number;
  bias: boolean;
  norm: boolean;
}

interface Sizes {
  hidden: number;
  inner: number;
  vocabulary: number;
  layers: number;
  keyHeads: number;
  valueHeads: number;
  keyWidth: number;
  valueWidth: number;
  convTaps: number;
  gate: 'silu' | 'sigmoid' | 'none';
  negativeEigenvalues: boolean;
  eps: number;
  tied: boolean;
  softmax: SoftmaxSizes | undefined;
}

// fla's Attention layer makes its q and k norms with the default eps of its RMSNorm, whatever the config says.
const softmaxNormEps = 1e-5;

function readSizes(config: Config): Sizes {
  const size = (name: string, fallback?: number) => config.get('size', name, fallback);
  const flag = (name: string, fallback: boolean) => config.get('boolean', name, fallback);
  config.ignore(...bookkeeping, 'attn_mode', 'fuse_norm', 'fuse_swiglu', 'fuse_cross_entropy', 'use_l2warp');
  config.ignore('fuse_linear_cross_entropy', 'max_position_embeddings', 'eos_token_id');
  config.only('hidden_act', 'swish', 'silu');
  if (config.raw('attnres_block_size') !== undefined) throw config.bad('attnres_block_size', 'absent', 'one');
  const hidden = size('hidden_size', 2048);
  const keyHeads = size('num_heads', 6);
  const keyWidth = size('head_dim', 256);
  const ratio = config.get('number', 'hidden_ratio', 4);
  const rounded = 256 * Math.ceil(Math.floor((hidden * ratio * 2) / 3) / 256);
  const gate = config.only('output_gate_activation', 'swish', 'silu', 'sigmoid') === 'sigmoid' ? 'sigmoid' : 'silu';
  const valueWidth = keyWidth * config.get('number', 'expand_v', 2);
  const sizes: Sizes = {
    hidden,
    inner: size('intermediate_size', rounded),
    vocabulary: size('vocab_size', 32000),
    layers: size('num_hidden_layers', 21),
    keyHeads,
    valueHeads: size('num_v_heads', keyHeads),
    keyWidth,
    valueWidth,
    convTaps: flag('use_short_conv', true) ? size('conv_size', 4) : 0,
    gate: flag('use_gate', true) ? gate : 'none',
    negativeEigenvalues: flag('allow_neg_eigval', false),
    eps: config.get('number', 'norm_eps', 1e-6),
    tied: flag('tie_word_embeddings', false),
    softmax: readSoftmax(config, hidden),
  };
  config.ignore('conv_size');
  config.finish();
  if (sizes.valueHeads % keyHeads !== 0) {
    throw config.bad('num_v_heads', `a multiple of num_heads = ${keyHeads}`, sizes.valueHeads);
  }
  if (sizes.convTaps === 1) throw config.bad('conv_size', 'at least 2', 1);
  checkWidth(config.where, 'head_dim', keyWidth, 512);
  checkWidth(config.where, 'head_dim x expand_v', valueWidth, 512);
  return sizes;
}

function readSoftmax(config: Config, hidden: number): SoftmaxSizes | undefined {
  const attn = config.object('attn');
  if (attn === undefined) return undefined;
  const layers = attn.numbers('layers');
  if (layers === undefined) throw attn.bad('layers', 'a list of layer numbers', undefined);
  const heads = attn.get('size', 'num_heads');
  const window = attn.raw('window_size') === undefined ? 0 : attn.get('size', 'window_size');
  const sizes: SoftmaxSizes = {
    layers: new Set(layers),
    heads,
    kvHeads: attn.get('size', 'num_kv_heads', heads),
    width: hidden / heads,
    window,
    theta: attn.get('number', 'rope_theta', 10000),
    bias: attn.get('boolean', 'qkv_bias', false),
    norm: attn.get('boolean', 'qk_norm', false),
  };
  attn.finish();
  if (heads % sizes.kvHeads !== 0) throw attn.bad('num_kv_heads', `a divisor of num_heads = ${heads}`, sizes.kvHeads);
  checkWidth(attn.where, `hidden_size / num_heads`, sizes.width, 512);
  return sizes;
}

async function build(source: WeightSource, sizes: Sizes, where: Config): Promise<LanguageModel> {
  const { hidden } = sizes;
  const state = new StateLayout();
  const kv = new KvLayout();
  const { embedding, head } = await embeddingAndHead(source, where, { ...sizes, embedding: 'model.embeddings.weight' });
  const blocks: Block[] = [];
  for (let i = 0; i < sizes.layers; i++) {
    const layer = `model.layers.${i}.`;
    const mixerNorm = await vector(source, `${layer}attn_norm.weight`, hidden);
    const mixer = sizes.softmax?.layers.has(i)
      ? await attention(source, sizes, sizes.softmax, `${layer}attn.`, kv)
      : await deltaNet(source, sizes, `${layer}attn.`, state);
    const mlpNorm = await vector(source, `${layer}mlp_norm.weight`, hidden);
    const mlp = await gatedMlp(source, `${layer}mlp.`, hidden, sizes.inner);
    blocks.push({ mixerNorm, mixer, mlpNorm, mlp });
  }
  const norm = await vector(source, 'model.norm.weight', hidden);
  const { activations } = source;
  const kind = { activations, normEps: sizes.eps, zeroCentred: false };
  return new LanguageModel({ embedding, blocks, norm, head, ...kind, state, kv });
}

async function deltaNet(source: WeightSource, sizes: Sizes, name: string, state: StateLayout): Promise<Layer> {
  const { hidden, keyHeads, valueHeads, keyWidth, valueWidth, convTaps, gate } = sizes;
  const keys = keyHeads * keyWidth;
  const values = valueHeads * valueWidth;
  const projection = (part: string, out: number) => ({ name: `${name}${part}_proj.weight`, out });
  const input = await source.linear(
    [
      projection('q', keys),
      projection('k', keys),
      projection('v', values),
      ...(gate === 'none' ? [] : [projection('g', values)]),
      projection('b', valueHeads),
      projection('a', valueHeads),
    ],
    hidden,
  );
  const all = 2 * keys + values;
  const taps = Object.entries({ q: keys, k: keys, v: values }).map(([part, size]) => ({
    name: `${name}${part}_conv1d.weight`,
    stored: [size, 1, convTaps],
  }));
  const own = (tensor: string, length: number) => vector(source, name + tensor, length);
  const weights = {
    input,
    conv: convTaps > 0 ? await source.values(taps, [all, convTaps]) : undefined,
    output: await source.linear([projection('o', hidden)], values),
    aLog: await own('A_log', valueHeads),
    dtBias: await own('dt_bias', valueHeads),
    norm: await own('o_norm.weight', valueWidth),
  };
  const options = { normEps: sizes.eps, gate, negativeEigenvalues: sizes.negativeEigenvalues };
  return new GatedDeltaNet({ keyHeads, valueHeads, keyWidth, valueWidth, convTaps }, weights, options, state, name);
}

async function attention(
  source: WeightSource,
  sizes: Sizes,
  softmax: SoftmaxSizes,
  name: string,
  kv: KvLayout,
): Promise<Layer> {
  const { hidden } = sizes;
  const { heads, kvHeads, width, window } = softmax;
  const outs = { q: heads * width, k: kvHeads * width, v: kvHeads * width };
  const parts = Object.entries(outs);
  const norm = (tensor: string) => vector(source, name + tensor, width);
  const weights = {
    input: await source.linear(
      parts.map(([part, out]) => ({ name: `${name}${part}_proj.weight`, out })),
      hidden,
    ),
    inputBias: softmax.bias
      ? await source.values(
          parts.map(([part, out]) => ({ name: `${name}${part}_proj.bias`, stored: [out] })),
          [outs.q + outs.k + outs.v],
        )
      : undefined,
    output: await source.linear([{ name: `${name}o_proj.weight`, out: hidden }], heads * width),
    queryNorm: softmax.norm ? await norm('q_norm.weight') : undefined,
    keyNorm: softmax.norm ? await norm('k_norm.weight') : undefined,
    inverseFrequencies: source.own((device) => inverseFrequencies(width, softmax.theta, device)),
  };
  const options = { normEps: softmaxNormEps, zeroCentred: false, gated: false };
  return new Attention({ heads, kvHeads, width, window }, weights, options, kv);
}

export const gatedDeltaNet: Family = {
  modelTypes: ['gated_deltanet'],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [2];
    const sizes = readSizes(config);
    return {
      family: 'gated_deltanet',
      stopIds,
      // max_position_embeddings only sizes a table in fla.
      contextLength: 2 ** 20,
      ignored: /^$/,
      build: (source) => build(source, sizes, config),
    };
  },
};
