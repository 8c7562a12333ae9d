// RWKV-7, in the names of its author's checkpoints (`blocks.N.att...`, also under `rwkv7.`) and in those of
// flash-linear-attention (`model.layers.N.attn...`). Layout: RWKV-LM RWKV-v7/rwkv_v7_numpy.py; fla models/rwkv7.
import { checkWidth, KvLayout, type Layer, StateLayout } from '../../layers/layer';
import { ChannelMix, FirstValues, type LowRank, TimeMix } from '../../layers/rwkv7';
import type { Tensor } from '../../tensor/tensor';
import { bookkeeping, type Config } from '../config';
import { type Branch, LanguageModel, type Norm } from '../language-model';
import type { WeightSource } from '../weights';
import type { Family, Plan } from './family';
import { type Gate, type Names, namesOf } from './rwkv7-names';

interface Sizes {
  hidden: number;
  inner: number;
  vocabulary: number;
  layers: number;
  width: number;
  eps: number;
  ranks: Record<Gate, number>;
}

function readSizes(config: Config): Sizes {
  const size = (name: string, fallback: number) => config.get('size', name, fallback);
  config.ignore(...bookkeeping, 'attn_mode', 'fuse_norm', 'fuse_cross_entropy', 'use_l2warp', 'eos_token_id');
  config.ignore('fuse_linear_cross_entropy', 'max_position_embeddings');
  config.only('hidden_act', 'sqrelu', 'relu2');
  config.only('norm_first', true);
  config.only('norm_bias', true);
  config.only('tie_word_embeddings', false);
  if (config.raw('attn') !== undefined) throw config.bad('attn', 'absent', config.raw('attn'));
  const hidden = size('hidden_size', 2048);
  const width = size('head_dim', 64);
  const sizes: Sizes = {
    hidden,
    inner: size('intermediate_size', 32 * Math.ceil((hidden * config.get('number', 'hidden_ratio', 4)) / 32)),
    vocabulary: size('vocab_size', 32000),
    layers: config.get('count', 'num_hidden_layers', 24),
    width,
    eps: config.get('number', 'norm_eps', 1e-5),
    ranks: {
      w: size('decay_low_rank_dim', 64),
      a: size('a_low_rank_dim', 64),
      v: size('v_low_rank_dim', 16),
      g: size('gate_low_rank_dim', 128),
    },
  };
  config.ignore('hidden_ratio');
  if (hidden % width !== 0) throw config.bad('head_dim', `a divisor of hidden_size = ${hidden}`, width);
  config.only('num_heads', hidden / width);
  const widths = config.numbers('value_dim') ?? [];
  if (widths.some((one) => one !== hidden)) throw config.bad('value_dim', `hidden_size = ${hidden} everywhere`, widths);
  config.finish();
  checkWidth(config.where, 'head_dim', width, 512);
  return sizes;
}
async function norm(source: WeightSource, name: string, hidden: number): Promise<Norm> {
  const part = (kind: string) => source.values([{ name: `${name}.${kind}`, stored: [hidden] }], [hidden]);
  return { norm: await part('weight'), normBias: await part('bias') };
}

/** x + mu (before - x) as a convolution of two taps: mu, 1 - mu. */
function shift(source: WeightSource, names: readonly string[], stored: number[], hidden: number) {
  const taps = (...mus: Float32Array[]) => Float32Array.from(mus.flatMap((mu) => [...mu].flatMap((m) => [m, 1 - m])));
  return source.computed(
    names.map((name) => ({ name, stored })),
    [names.length * hidden, 2],
    taps,
  );
}

async function timeMix(
  source: WeightSource,
  { hidden, width, eps, ranks }: Sizes,
  names: Names,
  first: FirstValues,
  index: number,
  state: StateLayout,
): Promise<Layer> {
  const name = names.layer(index).mixer;
  const heads = hidden / width;
  const shapes = names.vector(hidden);
  const square = (i: number) => source.linear([{ name: `${name}${names.linears[i]!}.weight`, out: hidden }], hidden);
  const lowRank = async (gate: Gate): Promise<LowRank> => {
    const { down, up, bias, transposed, biasShape } = names.lowRank(gate);
    const stored = { name: name + bias, stored: biasShape(hidden) };
    return {
      down: await source.linear([{ name: name + down, out: ranks[gate], transposed }], hidden),
      up: await source.linear([{ name: name + up, out: hidden, transposed }], ranks[gate]),
      bias: gate === 'g' ? undefined : await source.values([stored], [hidden]),
    };
  };
  const byHead = (tensor: string, stored: number[]): Promise<Tensor<'float32'>> =>
    source.values([{ name: name + tensor, stored }], [heads, width]);
  const group = await norm(source, name + names.groupNorm, hidden);
  const weights = {
    shift: await shift(
      source,
      [...'rwkvag'].map((part) => `${name}x_${part}`),
      shapes.shift,
      hidden,
    ),
    receptance: await square(0),
    key: await square(1),
    value: await square(2),
    output: await square(3),
    decay: await lowRank('w'),
    rate: await lowRank('a'),
    gate: await lowRank('g'),
    mixture: index === 0 ? undefined : await lowRank('v'),
    keyScale: await byHead('k_k', shapes.scale),
    keyMix: await byHead('k_a', shapes.scale),
    bonusWeight: await byHead('r_k', [heads, width]),
    norm: group.norm,
    normBias: group.normBias!,
  };
  return new TimeMix({ heads, width, normEps: width * eps }, weights, first, index, state, name);
}

async function channelMix(source: WeightSource, sizes: Sizes, names: Names, name: string, state: StateLayout) {
  const { hidden, inner } = sizes;
  const taps = await shift(source, [`${name}x_k`], names.vector(hidden).ffnShift, hidden);
  const key = await source.linear([{ name: `${name}key.weight`, out: inner }], hidden);
  const value = await source.linear([{ name: `${name}value.weight`, out: hidden }], inner);
  return new ChannelMix(taps, key, value, hidden, state, name);
}

async function build(source: WeightSource, sizes: Sizes): Promise<LanguageModel> {
  const { hidden, vocabulary } = sizes;
  const names = namesOf(source);
  const state = new StateLayout();
  const first = new FirstValues(sizes.layers);
  const embedding = await source.linear([{ name: names.embedding, out: vocabulary }], hidden);
  const head = await source.linear([{ name: names.head, out: vocabulary }], hidden);
  const embeddingNorm = await norm(source, names.embeddingNorm, hidden);
  const branches: Branch[] = [];
  for (let i = 0; i < sizes.layers; i++) {
    const { mixerNorm, ffnNorm, ffn } = names.layer(i);
    const mixer = await timeMix(source, sizes, names, first, i, state);
    branches.push({ ...(await norm(source, mixerNorm, hidden)), layer: mixer });
    const layer = await channelMix(source, sizes, names, ffn, state);
    branches.push({ ...(await norm(source, ffnNorm, hidden)), layer });
  }
  const kind = { activations: source.activations, normEps: sizes.eps, zeroCentred: false };
  const ends = { embedding, embeddingNorm, head, ...(await norm(source, names.finalNorm, hidden)) };
  return new LanguageModel({ ...ends, branches, ...kind, state, kv: new KvLayout() });
}

export const rwkv7: Family = {
  modelTypes: ['rwkv7'],
  read(config: Config): Plan {
    const stopIds = config.numbers('eos_token_id') ?? [0];
    const sizes = readSizes(config);
    return {
      family: 'rwkv7',
      stopIds,
      contextLength: 2 ** 20, // no position is encoded
      ignored: /\bblocks\.0\.att\.v[012]$/, // the first layer has nothing to mix in
      build: (source) => build(source, sizes),
    };
  },
};
