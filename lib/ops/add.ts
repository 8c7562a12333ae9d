// add: a + scale * b, element by element (residual branches, with a multiplier where a model has one).
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('add', { a: 'in', b: 'in', out: 'out', scale: 'number' });

/**
 * out = a + scale * b, computed in float32. `scale` is held as float32.
 * @param a float32, bfloat16 or float16 of any shape
 * @param b as a
 * @returns as a
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE
 */
export function add<D extends Float>({ a, b, scale = 1 }: { a: Tensor<D>; b: Tensor<D>; scale?: number }): Tensor<D> {
  op.dtype('a', a, floats);
  op.dtype('b', b, [a.dtype]);
  if (a.shape.length !== b.shape.length || a.shape.some((size, i) => size !== b.shape[i])) {
    throw op.error('ERR_SHAPE', `b must be [${a.shape.join(', ')}] as a, got [${b.shape.join(', ')}]`);
  }
  const out = op.output(a, a.dtype, a.shape);
  op.run({ a, b, out, scale });
  return out;
}

/** float64 oracle. */
export function addReference(a: NdArray, b: NdArray, scale = 1): NdArray {
  return nd(
    a.shape,
    a.data.map((x, i) => x + scale * b.data[i]!),
  );
}

/** Reads a and b, writes out. */
export const addCost = (values: number, bytesPerValue: number) => ({
  bytes: 3 * values * bytesPerValue,
  flops: 2 * values,
});
