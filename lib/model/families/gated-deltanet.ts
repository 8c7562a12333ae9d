// Gated DeltaNet in the layout of flash-linear-attention, with or without sliding-window softmax layers. Layout: fla
// models/gated_deltanet and layers/gated_deltanet.py.
import { GatedDeltaNet } from '../../layers/gated-delta-net';
import { checkWidth, type Layer, type StateLayout } from '../../layers/layer';
import type { Config } from '../config';
import type { WeightSource } from '../weights';
import { type FlaSizes, flaFamily, projections, readTaps, shortConv } from './fla';
import { vector } from './parts';

function readMixer(config: Config) {
  const keyHeads = config.get('count', 'num_heads', 6);
  const keyWidth = config.get('size', 'head_dim', 256);
  const valueHeads = config.get('count', 'num_v_heads', keyHeads);
  const valueWidth = keyWidth * config.get('number', 'expand_v', 2);
  const activation = config.only('output_gate_activation', 'swish', 'silu', 'sigmoid');
  const gate = activation === 'sigmoid' ? ('sigmoid' as const) : ('silu' as const);
  if (valueHeads % keyHeads !== 0) throw config.bad('num_v_heads', `a multiple of num_heads = ${keyHeads}`, valueHeads);
  checkWidth(config.where, 'head_dim', keyWidth, 512);
  checkWidth(config.where, 'head_dim x expand_v', valueWidth, 512);
  return {
    sizes: { keyHeads, valueHeads, keyWidth, valueWidth, convTaps: readTaps(config, true) },
    gate: config.get('boolean', 'use_gate', true) ? gate : ('none' as const),
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
  const { keyHeads, valueHeads, keyWidth, valueWidth, convTaps } = sizes;
  const values = valueHeads * valueWidth;
  const qkv = { q: keyHeads * keyWidth, k: keyHeads * keyWidth, v: values };
  const outs = { ...qkv, g: gate === 'none' ? 0 : values, b: valueHeads, a: valueHeads };
  const own = (tensor: string, length: number) => vector(source, name + tensor, length);
  const weights = {
    input: await source.linear(projections(name, outs), hidden),
    conv: await shortConv(source, name, qkv, convTaps),
    output: await source.linear(projections(name, { o: hidden }), values),
    decay: { aLog: await own('A_log', valueHeads), dtBias: await own('dt_bias', valueHeads) },
    norm: await own('o_norm.weight', valueWidth),
  };
  return new GatedDeltaNet(sizes, weights, { normEps: eps, gate, negativeEigenvalues }, state, name);
}

export const gatedDeltaNet = flaFamily('gated_deltanet', { layers: 21, ratio: 4 }, (config, sizes) => {
  const read = readMixer(config);
  return (source, name, state) => mixer(source, sizes, read, name, state);
});
