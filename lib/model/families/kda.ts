// Kimi Delta Attention in the layout of flash-linear-attention. Layout: fla models/kda and layers/kda.py.
import { KimiDeltaAttention, type KimiGate } from '../../layers/kimi-delta-attention';
import { checkWidth, type Layer, type StateLayout } from '../../layers/layer';
import type { Config } from '../config';
import type { WeightSource } from '../weights';
import { type FlaSizes, flaFamily, projections, readTaps, shortConv } from './fla';
import { vector } from './parts';

function readMixer(config: Config) {
  const keyHeads = config.get('count', 'num_heads', 16);
  const keyWidth = config.get('size', 'head_dim', 128);
  const valueHeads = config.get('count', 'num_v_heads', keyHeads);
  const valueWidth = keyWidth * config.get('number', 'expand_v', 1);
  if (valueHeads % keyHeads !== 0) throw config.bad('num_v_heads', `a multiple of num_heads = ${keyHeads}`, valueHeads);
  checkWidth(config.where, 'head_dim', keyWidth, 512);
  checkWidth(config.where, 'head_dim x expand_v', valueWidth, 512);
  // fla's kernels take the bound from either field: both or none, so that no two of them differ.
  const bound = config.raw('lower_bound') === undefined ? undefined : config.get('number', 'lower_bound');
  config.only('safe_gate', bound !== undefined);
  if (bound !== undefined && bound >= 0) throw config.bad('lower_bound', 'below 0', bound);
  return {
    sizes: { keyHeads, valueHeads, keyWidth, valueWidth, convTaps: readTaps(config, true), rank: valueWidth },
    bound,
    negativeEigenvalues: config.get('boolean', 'allow_neg_eigval', false),
  };
}

async function mixer(
  source: WeightSource,
  { hidden, eps }: FlaSizes,
  { sizes, bound, negativeEigenvalues }: ReturnType<typeof readMixer>,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const { keyHeads, valueHeads, keyWidth, valueWidth, convTaps, rank } = sizes;
  const values = valueHeads * valueWidth;
  const channels = valueHeads * keyWidth;
  const qkv = { q: keyHeads * keyWidth, k: keyHeads * keyWidth, v: values };
  const down = ['f', 'g'].map((part) => ({ name: `${name}${part}_proj.0.weight`, out: rank }));
  const up = (part: string, out: number) => source.linear([{ name: `${name}${part}_proj.1.weight`, out }], rank);
  const weights = {
    input: await source.linear([...projections(name, { ...qkv, b: valueHeads }), ...down], hidden),
    decayUp: await up('f', channels),
    gateUp: await up('g', values),
    gateBias: await vector(source, `${name}g_proj.1.bias`, values),
    conv: await shortConv(source, name, qkv, convTaps),
    output: await source.linear(projections(name, { o: hidden }), values),
    gate: await gate(source, name, { heads: valueHeads, width: keyWidth, bound }),
    norm: await vector(source, `${name}o_norm.weight`, valueWidth),
  };
  return new KimiDeltaAttention(sizes, weights, { normEps: eps, negativeEigenvalues }, state, name);
}

async function gate(
  source: WeightSource,
  name: string,
  { heads, width, bound }: { heads: number; width: number; bound: number | undefined },
): Promise<KimiGate> {
  const dtBias = await vector(source, `${name}dt_bias`, heads * width);
  const stored = [{ name: `${name}A_log`, stored: [heads] }];
  if (bound !== undefined) {
    const rate = await source.computed(stored, [heads], (aLog) => aLog!.map(Math.exp));
    return { form: 'sigmoid', bound, rate, dtBias };
  }
  const channels = heads * width;
  const repeated = (aLog: Float32Array) =>
    Float32Array.from({ length: channels }, (_, i) => aLog[Math.floor(i / width)]!);
  const aLog = await source.computed(stored, [channels], (values) => repeated(values!));
  return { form: 'softplus', aLog, dtBias };
}

export const kda = flaFamily('kda', { layers: 24, ratio: 4 }, (config, sizes) => {
  const read = readMixer(config);
  return (source, name, state) => mixer(source, sizes, read, name, state);
});
