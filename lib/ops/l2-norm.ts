// l2Norm: scales each head's vector to a fixed length, as delta rules want their queries and keys.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('l2Norm', { x: 'in', out: 'out', scale: 'number', eps: 'number' });

/**
 * out = x scale / sqrt(sum of x^2 over D + eps), in float32 whatever the dtype; the form of fla's l2norm and of
 * transformers' Qwen3-Next, where eps stands inside the root.
 * @param input x: [T, H, D] float32, bfloat16 or float16, the stride of T is free; eps >= 0; scale: 1 by default
 * @returns [T, H, D] of x's dtype
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function l2Norm<X extends Tensor>(input: { x: X; eps: number; scale?: number | undefined }): X {
  const { x, eps, scale = 1 } = op.input(input);
  const shape = op.shape('x', x, ['T', 'H', 'D']);
  op.dtype('x', x, ['float32', 'bfloat16', 'float16']);
  op.check(Number.isFinite(eps) && eps >= 0, `eps must be a number of 0 or more, got ${shown(eps)}`);
  op.check(Number.isFinite(scale), `scale must be a number, got ${shown(scale)}`);
  const out = op.output(x, x.dtype, shape);
  op.run({ x, out, scale, eps });
  return out as X;
}

/** In float64. */
export function l2NormReference(x: NdArray, eps: number, scale = 1): NdArray {
  const D = x.shape[2]!;
  const out = nd(x.shape);
  for (let row = 0; row + D <= x.data.length && D > 0; row += D) {
    let squares = 0;
    for (let d = 0; d < D; d++) squares += x.data[row + d]! ** 2;
    for (let d = 0; d < D; d++) out.data[row + d] = (x.data[row + d]! * scale) / Math.sqrt(squares + eps);
  }
  return out;
}

/** Of T x H vectors of D elements of `width` bytes. */
export function l2NormCost(sizes: { T: number; H: number; D: number; width: number }): {
  bytes: number;
  flops: number;
} {
  const size = sizes.T * sizes.H * sizes.D;
  return { bytes: 2 * size * sizes.width, flops: 3 * size };
}
