// layerNorm: mean and variance normalisation over the last dimension, or over groups of it (RWKV's group norm).
import type { Tensor } from '../tensor/tensor';
import type { Float } from './float';
import { checkNorm } from './norm-input';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('layerNorm', {
  x: 'in',
  weight: 'in',
  bias: 'optional',
  out: 'out',
  groupSize: 'number',
  eps: 'number',
});

/**
 * out = (x - mean) / sqrt(var + eps) * weight + bias, with mean and (biased) variance over each group of `groupSize`
 * neighbours of the last dimension (default: all of it). Statistics and products in float32 or wider, in a fixed order.
 * @param x float32, bfloat16 or float16 [T, C] or [T, H, D] (free row stride)
 * @param weight float32 [C], or [D], or [H * D] for [T, H, D]
 * @param bias as weight
 * @returns as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function layerNorm<D extends Float>(input: {
  x: Tensor<D>;
  weight: Tensor<'float32'>;
  bias?: Tensor<'float32'>;
  eps: number;
  groupSize?: number;
}): Tensor<D> {
  const { x, weight, bias, eps, groupSize } = op.input(input);
  const group = checkNorm(op, x, weight, eps, groupSize);
  if (bias !== undefined) op.expect('bias', bias, 'float32', { C: weight.shape[0]! });
  const out = op.output(x, x.dtype, x.shape);
  op.run({ x, weight, bias, out, groupSize: group, eps });
  return out;
}

/** float64 oracle. */
export function layerNormReference(
  x: NdArray,
  weight: NdArray,
  bias: NdArray | undefined,
  eps: number,
  groupSize = x.shape.at(-1)!,
): NdArray {
  const out = nd(x.shape);
  const weights = weight.data.length;
  for (let start = 0; start < x.data.length; start += groupSize) {
    const group = x.data.subarray(start, start + groupSize);
    const mean = group.reduce((sum, value) => sum + value, 0) / groupSize;
    const variance = group.reduce((sum, value) => sum + (value - mean) ** 2, 0) / groupSize;
    for (let i = 0; i < groupSize; i++) {
      const channel = (start + i) % weights;
      const normalised = (group[i]! - mean) / Math.sqrt(variance + eps);
      out.data[start + i] = normalised * weight.data[channel]! + (bias?.data[channel] ?? 0);
    }
  }
  return out;
}

/** Reads x twice from near memory and once from far, writes out. */
export const layerNormCost = (values: number, bytesPerValue: number) => ({
  bytes: 2 * values * bytesPerValue,
  flops: 8 * values,
});
