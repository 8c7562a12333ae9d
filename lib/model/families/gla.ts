// Gated linear attention and RetNet in the layout of flash-linear-attention, which differ in the decay and in positions.
// Layout: fla models/{gla,retnet} and layers/{gla,multiscale_retention}.py.
import { inverseFrequencies } from '../../layers/attention';
import { type Decay, DecayedAttention, type DecayedAttentionSizes } from '../../layers/decayed-attention';
import type { Layer, StateLayout } from '../../layers/layer';
import { Tensor } from '../../tensor/tensor';
import type { Config } from '../config';
import type { WeightSource } from '../weights';
import { type FlaSizes, flaFamily, projections, readTaps, shortConv, widthOfHead } from './fla';
import { vector } from './parts';

// The layer's own defaults, which no config changes.
const gateRank = 16;
const gateDivisor = 16;
const theta = 10000;

interface Mixer {
  sizes: DecayedAttentionSizes;
  gated: boolean;
  decay: Decay['per'];
}

function readMixer(
  config: Config,
  hidden: number,
  defaults: { heads: number; expandK: number; expandV: number; decay: Decay['per'] },
): Mixer {
  config.only('elementwise_affine', true);
  for (const field of ['feature_map', 'clamp_min']) {
    if (config.raw(field) !== undefined) throw config.bad(field, 'absent', config.raw(field));
  }
  const heads = config.get('count', 'num_heads', defaults.heads);
  const kvHeads = config.get('count', 'num_kv_heads', heads);
  if (heads % kvHeads !== 0) throw config.bad('num_kv_heads', `a divisor of num_heads = ${heads}`, kvHeads);
  const width = (field: string, fallback: number) =>
    widthOfHead(config, field, config.get('number', field, fallback), hidden, heads);
  return {
    sizes: {
      heads,
      kvHeads,
      keyWidth: width('expand_k', defaults.expandK),
      valueWidth: width('expand_v', defaults.expandV),
      convTaps: readTaps(config, false),
    },
    gated: config.get('boolean', 'use_output_gate', true),
    decay: defaults.decay,
  };
}

async function mixer(
  source: WeightSource,
  { hidden, eps }: FlaSizes,
  { sizes, gated, decay }: Mixer,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const { heads, kvHeads, keyWidth, valueWidth, convTaps } = sizes;
  const values = heads * valueWidth;
  const qkv = { q: heads * keyWidth, k: kvHeads * keyWidth, v: kvHeads * valueWidth };
  const down = { name: `${name}gk_proj.0.weight`, out: gateRank };
  const parts = [...projections(name, { ...qkv, g: gated ? values : 0 }), ...(decay === 'channel' ? [down] : [])];
  const fusedNorm = `${name}g_norm_swish_gate.weight`;
  const weights = {
    input: await source.linear(parts, hidden),
    conv: await shortConv(source, name, qkv, convTaps),
    output: await source.linear(projections(name, { o: hidden }), values),
    norm: await vector(source, source.has(fusedNorm) ? fusedNorm : `${name}g_norm.weight`, valueWidth),
    decay: decay === 'channel' ? await channelDecay(source, name, qkv.k) : headDecay(source, heads),
    inverseFrequencies:
      decay === 'head' ? source.own((device) => inverseFrequencies(keyWidth, theta, device)) : undefined,
  };
  return new DecayedAttention(sizes, weights, { normEps: eps, gated }, state, name);
}

async function channelDecay(source: WeightSource, name: string, channels: number): Promise<Decay> {
  const up = await source.linear([{ name: `${name}gk_proj.1.weight`, out: channels }], gateRank);
  const bias = await vector(source, `${name}gk_proj.1.bias`, channels);
  return { per: 'channel', up, bias, rank: gateRank, divisor: gateDivisor };
}

/** RetNet: 1 - 2^(-5 - h). */
function headDecay(source: WeightSource, heads: number): Decay {
  const logs = Float32Array.from({ length: heads }, (_, h) => Math.log1p(-(2 ** (-5 - h))));
  const g = source.own((device) => Tensor.from(logs, { dtype: 'float32', shape: [heads], device }));
  return { per: 'head', g };
}

export const gla = flaFamily('gla', { layers: 24, ratio: 4 }, (config, sizes) => {
  config.ignore('use_gk', 'use_gv'); // read by nothing in fla
  const read = readMixer(config, sizes.hidden, { heads: 4, expandK: 0.5, expandV: 1, decay: 'channel' });
  return (source, name, state) => mixer(source, sizes, read, name, state);
});

export const retnet = flaFamily('retnet', { layers: 24, ratio: 2 }, (config, sizes) => {
  config.only('use_short_conv', false); // fla's block does not pass it on
  const read = readMixer(config, sizes.hidden, { heads: 8, expandK: 1, expandV: 2, decay: 'head' });
  const { heads, kvHeads } = read.sizes;
  // A key head that several query heads read would need a state for each of their decays.
  if (kvHeads !== heads) throw config.bad('num_kv_heads', `num_heads = ${heads}`, kvHeads);
  return (source, name, state) => mixer(source, sizes, read, name, state);
});
