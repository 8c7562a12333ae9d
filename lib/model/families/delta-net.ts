// DeltaNet in the layout of flash-linear-attention. Layout: fla models/delta_net and layers/delta_net.py.
import { GatedDeltaNet } from '../../layers/gated-delta-net';
import type { Layer, StateLayout } from '../../layers/layer';
import type { Config } from '../config';
import type { WeightSource } from '../weights';
import { type FlaSizes, flaFamily, projections, readTaps, shortConv, widthOfHead } from './fla';
import { vector } from './parts';

function readMixer(config: Config, hidden: number) {
  config.only('qk_norm', 'l2');
  config.only('qk_activation', 'silu');
  config.only('use_beta', true);
  config.ignore('use_output_norm'); // fla norms the output in any case
  const heads = config.get('count', 'num_heads', 16);
  const width = (field: string) => widthOfHead(config, field, config.get('number', field, 1), hidden, heads);
  const sizes = {
    keyHeads: heads,
    valueHeads: heads,
    keyWidth: width('expand_k'),
    valueWidth: width('expand_v'),
    convTaps: readTaps(config, true),
  };
  return {
    sizes,
    gate: config.get('boolean', 'use_gate', false) ? ('silu' as const) : ('none' as const),
    negativeEigenvalues: config.get('boolean', 'allow_neg_eigval', false),
  };
}

async function mixer(
  source: WeightSource,
  { hidden, eps }: FlaSizes,
  { sizes, gate, negativeEigenvalues }: ReturnType<typeof readMixer>,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const { keyHeads: heads, keyWidth, valueWidth, convTaps } = sizes;
  const values = heads * valueWidth;
  const qkv = { q: heads * keyWidth, k: heads * keyWidth, v: values };
  const outs = { ...qkv, g: gate === 'none' ? 0 : values, b: heads };
  const weights = {
    input: await source.linear(projections(name, outs), hidden),
    conv: await shortConv(source, name, qkv, convTaps),
    output: await source.linear(projections(name, { o: hidden }), values),
    norm: await vector(source, `${name}o_norm.weight`, valueWidth),
  };
  return new GatedDeltaNet(sizes, weights, { normEps: eps, gate, negativeEigenvalues }, state, name);
}

export const deltaNet = flaFamily('delta_net', { layers: 24, ratio: 4 }, (config, sizes) => {
  const read = readMixer(config, sizes.hidden);
  return (source, name, state) => mixer(source, sizes, read, name, state);
});
