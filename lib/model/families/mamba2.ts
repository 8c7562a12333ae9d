// Mamba-2: mixers alone, without feed-forward blocks. Layout: transformers models/mamba2/modeling_mamba2.py.
import { checkWidth, KvLayout, type Layer, StateLayout } from '../../layers/layer';
import { Mamba2, type Mamba2Options, type Mamba2Sizes } from '../../layers/mamba2';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel } from '../language-model';
import type { WeightSource } from '../weights';
import type { Family, Plan } from './family';
import { embeddingAndHead, vector } from './parts';

/** What makes a mixer, in any model that has some. */
export interface Mamba2Mixer extends Mamba2Sizes, Mamba2Options {
  readonly hidden: number;
  readonly bias: boolean;
  readonly convBias: boolean;
}

interface Sizes {
  vocabulary: number;
  layers: number;
  tied: boolean;
  eps: number;
  mixer: Mamba2Mixer;
}

function readSizes(config: Config): Sizes {
  const size = (name: string, fallback: number) => config.get('size', name, fallback);
  config.only('hidden_act', 'silu', 'swish');
  config.ignore(...bookkeeping, 'eos_token_id', 'residual_in_fp32', 'rescale_prenorm_residual', 'chunk_size');
  config.ignore('time_step_rank', 'time_step_min', 'time_step_max', 'time_step_floor'); // of the initial weights
  const hidden = size('hidden_size', 4096);
  const eps = config.get('number', 'layer_norm_epsilon', 1e-5);
  const mixer: Mamba2Mixer = {
    hidden,
    heads: config.get('count', 'num_heads', 128),
    headWidth: size('head_dim', 64),
    groups: size('n_groups', 8),
    stateWidth: size('state_size', 128),
    convTaps: size('conv_kernel', 4),
    bias: config.get('boolean', 'use_bias', false),
    convBias: config.get('boolean', 'use_conv_bias', true),
    normEps: eps,
    stepLimits: config.range('time_step_limit', [0, Number.POSITIVE_INFINITY]),
  };
  const inner = Math.floor(config.get('number', 'expand', 2) * hidden);
  const sizes = {
    vocabulary: size('vocab_size', 32768),
    layers: config.get('count', 'num_hidden_layers', 64),
    tied: config.get('boolean', 'tie_word_embeddings', false),
    eps,
    mixer,
  };
  config.finish();
  const { heads, headWidth } = mixer;
  if (inner !== heads * headWidth) throw config.bad('expand', `${heads} x ${headWidth} / hidden_size`, inner / hidden);
  checkMixer(config, mixer, { groups: 'n_groups', taps: 'conv_kernel', head: 'head_dim', state: 'state_size' });
  return sizes;
}

/** ERR_MODEL_UNSUPPORTED for sizes that do not fit; `names` are those of the config. */
export function checkMixer(
  config: Config,
  { heads, groups, headWidth, stateWidth, convTaps }: Mamba2Mixer,
  names: Record<'groups' | 'taps' | 'head' | 'state', string>,
): void {
  if (heads % groups !== 0) throw config.bad(names.groups, `a divisor of the ${heads} heads`, groups);
  if (convTaps < 2) throw config.bad(names.taps, 'at least 2', convTaps);
  checkWidth(config.where, names.head, headWidth, 512);
  checkWidth(config.where, names.state, stateWidth, 512);
}

/** The mixer whose tensors' names start with `name`. */
export async function mamba2Mixer(
  source: WeightSource,
  mixer: Mamba2Mixer,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const { hidden, heads, groups, headWidth, stateWidth, convTaps } = mixer;
  const inner = heads * headWidth;
  const convWidth = inner + 2 * groups * stateWidth;
  const rows = inner + convWidth + heads;
  const own = (tensor: string, length: number) => vector(source, name + tensor, length);
  const conv = [{ name: `${name}conv1d.weight`, stored: [convWidth, 1, convTaps] }];
  const weights = {
    input: await source.linear([{ name: `${name}in_proj.weight`, out: rows }], hidden),
    inputBias: mixer.bias ? await own('in_proj.bias', rows) : undefined,
    conv: await source.values(conv, [convWidth, convTaps]),
    convBias: mixer.convBias ? await own('conv1d.bias', convWidth) : undefined,
    aLog: await own('A_log', heads),
    dtBias: await own('dt_bias', heads),
    skip: await own('D', heads),
    norm: await own('norm.weight', inner),
    output: await source.linear([{ name: `${name}out_proj.weight`, out: hidden }], inner),
    outputBias: mixer.bias ? await own('out_proj.bias', hidden) : undefined,
  };
  return new Mamba2(mixer, weights, mixer, state, name);
}

async function build(source: WeightSource, sizes: Sizes, where: Config): Promise<LanguageModel> {
  const { hidden } = sizes.mixer;
  const state = new StateLayout();
  const old = 'backbone.embedding.weight'; // before transformers 4.45
  const { embedding, head } = await embeddingAndHead(source, where, {
    ...sizes,
    hidden,
    embedding: source.has(old) ? old : 'backbone.embeddings.weight',
  });
  const branches: Branch[] = [];
  for (let i = 0; i < sizes.layers; i++) {
    const layer = `backbone.layers.${i}.`;
    const norm = await vector(source, `${layer}norm.weight`, hidden);
    branches.push({ norm, layer: await mamba2Mixer(source, sizes.mixer, `${layer}mixer.`, state) });
  }
  const norm = await vector(source, 'backbone.norm_f.weight', hidden);
  const { activations } = source;
  const kind = { activations, normEps: sizes.eps, zeroCentred: false };
  return new LanguageModel({ embedding, branches, norm, head, ...kind, state, kv: new KvLayout() });
}

export const mamba2: Family = {
  modelTypes: ['mamba2'],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [2];
    const sizes = readSizes(config);
    return {
      family: 'mamba2',
      stopIds,
      contextLength: 2 ** 20, // no position is encoded
      ignored: /^$/,
      build: (source) => build(source, sizes, config),
    };
  },
};
