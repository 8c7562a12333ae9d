// HGRN2 in the layout of flash-linear-attention. Layout: fla models/hgrn2 and layers/hgrn2.py.
import { Hgrn2 } from '../../layers/hgrn2';
import type { Hidden, Layer, StateLayout } from '../../layers/layer';
import { converted } from '../../ops/convert';
import { Tensor } from '../../tensor/tensor';
import type { Config } from '../config';
import type { WeightSource } from '../weights';
import { type FlaSizes, flaFamily, projections, readTaps, widthOfHead } from './fla';
import { vector } from './parts';

// fla calls the norm of the output without an eps: the function's own, whatever the config says.
const outputEps = 1e-5;

function readMixer(config: Config, hidden: number) {
  config.only('elementwise_affine', true);
  const ratio = config.raw('expand_ratio') === undefined ? undefined : config.get('size', 'expand_ratio');
  const heads = config.get('count', 'num_heads', hidden / (ratio ?? 128));
  const width = widthOfHead(config, '1', 1, hidden, heads);
  if (ratio !== undefined && ratio !== width)
    throw config.bad('expand_ratio', `hidden_size / num_heads = ${width}`, ratio);
  return {
    heads,
    width,
    convTaps: readTaps(config, false),
    bounded: config.get('boolean', 'use_lower_bound', true),
  };
}

/** The bounds of layer `index`: the softmax of all layers, added up from the second layer to this one. */
export function lowerBounds(all: Float32Array, hidden: number, index: number): Float64Array {
  const layers = all.length / hidden;
  return Float64Array.from({ length: hidden }, (_, c) => {
    const column = Array.from({ length: layers }, (_, layer) => all[layer * hidden + c]!);
    const top = Math.max(...column);
    const parts = column.map((x) => Math.exp(x - top));
    const sum = (list: number[]) => list.reduce((total, x) => total + x, 0);
    return sum(parts.slice(1, index + 1)) / sum(parts);
  });
}

async function mixer(
  source: WeightSource,
  { hidden, layers }: FlaSizes,
  { heads, width, convTaps, bounded }: ReturnType<typeof readMixer>,
  index: number,
  name: string,
  state: StateLayout,
): Promise<Layer> {
  const taps = ['q', 'f', 'i'].map((part) => ({ name: `${name}${part}_conv1d.weight`, stored: [hidden, 1, convTaps] }));
  const stored = [{ name: 'model.lower_bounds', stored: [layers, hidden] }];
  const bounds = (map: (bound: number) => number) =>
    source.computed(stored, [hidden], (all) => Float32Array.from(lowerBounds(all!, hidden, index), map));
  const constant = (value: number) =>
    source.own((device) =>
      Tensor.from(new Float32Array(hidden).fill(value), { dtype: 'float32', shape: [hidden], device }),
    );
  const limited = bounded && index > 0;
  const activations = (x: Tensor<'float32'>): Hidden => activationsOf(source, x);
  const weights = {
    input: await source.linear(projections(name, { q: hidden, f: hidden, i: hidden }), hidden),
    output: await source.linear(projections(name, { o: hidden }), hidden),
    conv: convTaps === 0 ? undefined : await source.values(taps, [3 * hidden, convTaps]),
    most: activations(limited ? await bounds((bound) => 1 - bound) : constant(1)),
    zeros: activations(constant(0)),
    logBound: limited ? activations(await bounds(Math.log)) : undefined,
    norm: await vector(source, `${name}g_norm.weight`, hidden),
  };
  return new Hgrn2({ heads, width, convTaps, normEps: outputEps }, weights, state, name);
}

/** In the dtype of the activations; as it is in the first pass, which makes nothing. */
function activationsOf(source: WeightSource, x: Tensor<'float32'>): Hidden {
  if (x === undefined || source.activations === 'float32') return x;
  return source.own(() => converted(x, source.activations));
}

export const hgrn2 = flaFamily('hgrn2', { layers: 24, ratio: 4 }, (config, sizes) => {
  const read = readMixer(config, sizes.hidden);
  return (source, name, state, index) => mixer(source, sizes, read, index, name, state);
});
