// The tolerance of ops without matrix products, and views with a row stride of their own.
import { floats } from '../../lib/ops/float';
import type { NdArray } from '../../lib/ops/reference';
import type { Tensor } from '../../lib/tensor/tensor';
import { relativeError, rounded, tensorOf, ulp } from './arrays';

export { floats };
export type Float = (typeof floats)[number];

/** Relative L2 error at most twice that of the exact result as `dtype` stores it, plus 4 ulp. */
export function expectClose(actual: NdArray, exact: NdArray, dtype: Float): void {
  expect(actual.shape).toEqual(exact.shape);
  const bound = 2 * relativeError(rounded(exact, dtype), exact) + 4 * ulp[dtype];
  expect(relativeError(actual, exact)).toBeLessThanOrEqual(bound);
}

/** The array as a tensor whose rows lie `gap` elements further apart than they must. What lies between is NaN. */
export function spread<D extends Float>(array: NdArray, dtype: D, gap: number): Tensor<D> {
  const rows = array.shape[0]!;
  const width = rows === 0 ? 0 : array.data.length / rows;
  const data = new Float64Array(rows * (width + gap)).fill(Number.NaN);
  for (let row = 0; row < rows; row++) {
    data.set(array.data.subarray(row * width, (row + 1) * width), row * (width + gap) + gap);
  }
  if (rows === 0) return tensorOf(array, dtype);
  return tensorOf({ shape: [rows, width + gap], data }, dtype).view(array.shape, gap, width + gap);
}

/** The error that a call throws. */
export function errorOf(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

/** Rows `begin` to `end` of an array. */
export function rowsOf(array: NdArray, begin: number, end: number): NdArray {
  const width = array.shape[0] === 0 ? 0 : array.data.length / array.shape[0]!;
  return { shape: [end - begin, ...array.shape.slice(1)], data: array.data.slice(begin * width, end * width) };
}
