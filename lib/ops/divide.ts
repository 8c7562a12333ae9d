// divide: each head's vector by a number that is kept away from 0: the normaliser of an mLSTM.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('divide', { x: 'in', divisor: 'in', floor: 'in', out: 'out', eps: 'number' });

/**
 * out = x / (max(|divisor|, floor) + eps), computed in float32. Source: xLSTM (arXiv 2405.04517), as in transformers
 * models/xlstm.
 * @param x float32, bfloat16 or float16 [T, H, D] (free row stride)
 * @param divisor float32 [T, H]
 * @param floor float32 [T, H]
 * @param eps default 0
 * @returns as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function divide<D extends Float>(input: {
  x: Tensor<D>;
  divisor: Tensor<'float32'>;
  floor: Tensor<'float32'>;
  eps?: number;
}): Tensor<D> {
  const { x, divisor, floor, eps = 0 } = op.input(input);
  op.dtype('x', x, floats);
  const [T, H] = op.shape('x', x, ['T', 'H', 'D']) as [number, number, number];
  op.expect('divisor', divisor, 'float32', { T, H });
  op.expect('floor', floor, 'float32', { T, H });
  op.check(Number.isFinite(eps) && eps >= 0, `eps must be 0 or more, got ${shown(eps)}`);
  const out = op.output(x, x.dtype, x.shape);
  op.run({ x, divisor, floor, out, eps });
  return out;
}

/** float64 oracle. */
export function divideReference(x: NdArray, divisor: NdArray, floor: NdArray, eps = 0): NdArray {
  const D = x.shape[2]!;
  const below = divisor.data.map((value, i) => Math.max(Math.abs(value), floor.data[i]!) + eps);
  return nd(
    x.shape,
    x.data.map((value, i) => value / below[Math.floor(i / D)]!),
  );
}

/** Reads x, writes out. */
export const divideCost = (values: number, bytesPerValue: number) => ({
  bytes: 2 * values * bytesPerValue,
  flops: values,
});
