// A layer of a model alone: its state, its tokens in slices, and float64 products with its weights.
import type { Layer, StateLayout } from '../../lib/layers/layer';
import { weightFrom } from '../../lib/ops/pack-weight';
import { type NdArray, nd } from '../../lib/ops/reference';
import { sequences } from '../../lib/ops/sequences';
import type { Weight } from '../../lib/ops/weight';
import { Tensor } from '../../lib/tensor/tensor';
import { tensorOf } from './arrays';
import { rowsOf } from './close';

export const weightOf = (array: NdArray): Weight => weightFrom(tensorOf(array, 'float32'), 'float32');

/** y = x W', of [T, C] and [N, C]; every product and sum rounded where asked for. */
export function project(x: NdArray, weight: NdArray, round: (value: number) => number = (value) => value): NdArray {
  const [T, C] = x.shape as [number, number];
  const N = weight.shape[0]!;
  const out = nd([T, N]);
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let c = 0; c < C; c++) sum = round(sum + round(x.data[t * C + c]! * weight.data[n * C + c]!));
      out.data[t * N + n] = sum;
    }
  }
  return out;
}

export const silu = (x: number): number => x / (1 + Math.exp(-x));

/** x / sqrt(mean x^2 + eps) times the weight, over rows as wide as the weight. */
export function rmsNormed(x: NdArray, weight: NdArray, eps: number): NdArray {
  const width = weight.data.length;
  const out = nd(x.shape);
  for (let start = 0; start < x.data.length; start += width) {
    const row = x.data.subarray(start, start + width);
    const size = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0) / width + eps);
    for (let c = 0; c < width; c++) out.data[start + c] = (row[c]! / size) * weight.data[c]!;
  }
  return out;
}

/** A pool of this many states for the layers that were added to the layout. */
export function poolOf(layout: StateLayout, slots: number): Tensor<'float32'> {
  const pool = Tensor.zeros({ dtype: 'float32', shape: [slots, layout.elements] });
  layout.bind(pool);
  return pool;
}

/** Tokens [from, to) of x [T, C] through the layer, of sequences of these lengths in the slots 0, 1, ... */
export function forward(layer: Layer, x: NdArray, from: number, to: number, lengths = [to - from], fresh = from === 0) {
  const own = lengths.map((_, n) => n);
  const tokens = sequences(lengths, { readSlots: own.map((n) => (fresh ? -1 : n)), writeSlots: own });
  const rows = Tensor.from(own, { dtype: 'int32', shape: [own.length] });
  return layer.forward(tensorOf(rowsOf(x, from, to), 'float32'), { sequences: tokens, rows });
}
