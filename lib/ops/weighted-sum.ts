// weightedSum: what the experts of a token made, added up by their weights.
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('weightedSum', { x: 'in', weights: 'in', base: 'optional', out: 'out' });

/**
 * out[t] = base[t] + sum over j of weights[t, j] x[t k + j], in float32, j upwards.
 * @param x float32, bfloat16 or float16 [T k, C] (free row stride)
 * @param weights float32 [T, k]
 * @param base [T, C] as x; absent: 0
 * @returns [T, C] as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE
 */
export function weightedSum<D extends Float>(input: {
  x: Tensor<D>;
  weights: Tensor<'float32'>;
  base?: Tensor<D> | undefined;
}): Tensor<D> {
  const { x, weights, base } = op.input(input);
  op.dtype('x', x, floats);
  const C = op.shape('x', x, ['T k', 'C'])[1]!;
  const [T, k] = op.shape('weights', weights, ['T', 'k']) as [number, number];
  op.expect('weights', weights, 'float32', { T, k });
  op.expect('x', x, x.dtype, { 'T k': T * k, C });
  if (base !== undefined) op.expect('base', base, x.dtype, { T, C });
  const out = op.output(x, x.dtype, [T, C]);
  op.run({ x, weights, base, out });
  return out;
}

/** float64 oracle. */
export function weightedSumReference(x: NdArray, weights: NdArray, base?: NdArray): NdArray {
  const [T, k] = weights.shape as [number, number];
  const C = x.shape[1]!;
  const out = nd([T, C], base?.data);
  for (let i = 0; i < T * k; i++) {
    for (let c = 0; c < C; c++) out.data[Math.floor(i / k) * C + c]! += weights.data[i]! * x.data[i * C + c]!;
  }
  return out;
}

/** Reads k rows of x for each that it writes. */
export const weightedSumCost = (rows: number, count: number, channels: number, bytesPerValue: number) => ({
  bytes: rows * ((count + 1) * channels * bytesPerValue + 4 * count),
  flops: 2 * rows * count * channels,
});
