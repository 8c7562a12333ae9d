// Gated slot attention in the layout of flash-linear-attention. Layout: fla models/gsa and layers/gsa.py.
import { GatedSlotAttention, type GatedSlotAttentionSizes } from '../../layers/gated-slot-attention';
import { checkWidth, type Layer, type StateLayout } from '../../layers/layer';
import { converted } from '../../ops/convert';
import { Tensor } from '../../tensor/tensor';
import type { Config } from '../config';
import type { WeightSource } from '../weights';
import { type FlaSizes, flaFamily, projections, readTaps, shortConv, widthOfHead } from './fla';
import { vector } from './parts';

// fla calls the norm of the output without an eps: the function's own, whatever the config says.
const outputEps = 1e-5;

const featureMaps = { swish: 'silu', relu: 'relu' } as const;

function readMixer(config: Config, hidden: number): GatedSlotAttentionSizes {
  config.only('elementwise_affine', true);
  config.ignore('use_output_gate', 'use_norm', 'exapnd_k', 'exapnd_v'); // read by nothing in fla
  for (const field of ['clamp_min', 'clamp_max']) {
    if (config.raw(field) !== undefined) throw config.bad(field, 'absent', config.raw(field));
  }
  const heads = config.get('count', 'num_heads', 4);
  const kvHeads = config.get('count', 'num_kv_heads', heads);
  if (heads % kvHeads !== 0) throw config.bad('num_kv_heads', `a divisor of num_heads = ${heads}`, kvHeads);
  const width = (field: string) => widthOfHead(config, field, config.get('number', field, 1), hidden, heads);
  const name = config.get('string', 'feature_map', 'swish');
  if (name !== 'swish' && name !== 'relu') throw config.bad('feature_map', 'swish or relu', name);
  const valueWidth = width('expand_v');
  // The norm behind the slots is as wide as the model.
  if (valueWidth * heads !== hidden) throw config.bad('expand_v', '1', config.raw('expand_v'));
  const slots = config.get('size', 'num_slots', 64);
  checkWidth(config.where, 'num_slots', slots, 512);
  return {
    heads,
    kvHeads,
    keyWidth: width('expand_k'),
    valueWidth,
    slots,
    convTaps: readTaps(config, false),
    gateDivisor: config.get('number', 'gate_logit_normalizer', 8),
    featureMap: featureMaps[name],
    normEps: outputEps,
  };
}

async function mixer(
  source: WeightSource,
  { hidden }: FlaSizes,
  sizes: GatedSlotAttentionSizes,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const { heads, kvHeads, keyWidth, valueWidth, slots, convTaps } = sizes;
  const qkv = { q: heads * keyWidth, k: kvHeads * keyWidth, v: kvHeads * valueWidth };
  const ones = source.own((device) =>
    Tensor.from(new Float32Array(slots).fill(1), { dtype: 'float32', shape: [slots], device }),
  );
  const plain = source.activations === 'float32';
  const weights = {
    input: await source.linear(projections(name, { ...qkv, f: kvHeads * slots }), hidden),
    output: await source.linear(projections(name, { o: hidden }), heads * valueWidth),
    conv: await shortConv(source, name, qkv, convTaps),
    norm: await vector(source, `${name}g_norm.weight`, hidden),
    ones: ones === undefined || plain ? ones : source.own(() => converted(ones, source.activations)),
  };
  return new GatedSlotAttention(sizes, weights, state, name);
}

export const gsa = flaFamily('gsa', { layers: 24, ratio: 4 }, (config, sizes) => {
  const read = readMixer(config, sizes.hidden);
  return (source, name, state) => mixer(source, sizes, read, name, state);
});
