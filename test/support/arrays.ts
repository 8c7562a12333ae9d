// Random arrays, their way to a device and back, and the one measure of error.
import type { NdArray } from '../../lib/ops/reference';
import { nd } from '../../lib/ops/reference';
import { arrayFrom, type DType, fromBFloat16, fromFloat16, toBFloat16, toFloat16 } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';

// Once here: jest looks a global up anew at each use, which would take most of the time of a test that draws many numbers.
const { PI, cos, floor, fround, imul, log, sqrt } = Math;
const notANumber = Number.isNaN;

/** A generator of numbers that depend on the seed alone (mulberry32). */
export function seeded(seed: number) {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = state;
    x = imul(x ^ (x >>> 15), x | 1);
    x ^= x + imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
  const gauss = (): number => sqrt(-2 * log(1 - next())) * cos(2 * PI * next());
  const fill = (shape: readonly number[], value: () => number): NdArray => {
    const array = nd(shape);
    for (let i = 0; i < array.data.length; i++) array.data[i] = value();
    return array;
  };
  return {
    uniform: (shape: readonly number[], low = 0, high = 1) => fill(shape, () => low + (high - low) * next()),
    normal: (shape: readonly number[], std = 1) => fill(shape, () => std * gauss()),
    /** A whole number in [0, below). */
    int: (below: number) => floor(next() * below),
  };
}

/** What `dtype` makes of a number. */
export function rounding(dtype: DType): (x: number) => number {
  if (dtype === 'bfloat16') return (x) => fromBFloat16(toBFloat16(x));
  if (dtype === 'float16') return (x) => fromFloat16(toFloat16(x));
  return dtype === 'float32' ? fround : (x) => x;
}

/** The values as a tensor of `dtype` holds them. */
export function rounded(array: NdArray, dtype: DType): NdArray {
  return { shape: array.shape, data: array.data.map(rounding(dtype)) };
}

export function tensorOf<D extends DType>(array: NdArray, dtype: D): Tensor<D> {
  return Tensor.from(arrayFrom(dtype, array.data), { dtype, shape: array.shape });
}

export async function readNd(tensor: Tensor): Promise<NdArray> {
  const values = await tensor.read();
  if (tensor.dtype === 'float32') return { shape: tensor.shape, data: new Float64Array(values as Float32Array) };
  const number: (x: number) => number =
    { bfloat16: fromBFloat16, float16: fromFloat16 }[tensor.dtype as 'bfloat16'] ?? Number;
  const data = new Float64Array(values.length);
  for (let i = 0; i < data.length; i++) data[i] = number(values[i] as number);
  return { shape: tensor.shape, data };
}

/** norm(actual - expected) / norm(expected); NaN anywhere counts as infinite, 0 / 0 as 0. */
export function relativeError(actual: NdArray, expected: NdArray): number {
  if (actual.data.length !== expected.data.length) {
    throw new RangeError(`[${actual.shape.join(', ')}] against [${expected.shape.join(', ')}]`);
  }
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.data.length; i++) {
    const d = actual.data[i]! - expected.data[i]!;
    if (notANumber(d) && !(notANumber(actual.data[i]!) && notANumber(expected.data[i]!))) return Infinity;
    if (notANumber(d)) continue;
    difference += d * d;
    size += expected.data[i]! ** 2;
  }
  if (difference === 0) return 0;
  return Math.sqrt(difference / size);
}

/** Relative size of the last place of a dtype: half of it is the largest rounding error. */
export const ulp: Record<'float32' | 'bfloat16' | 'float16', number> = {
  float32: 2 ** -23,
  bfloat16: 2 ** -7,
  float16: 2 ** -10,
};
