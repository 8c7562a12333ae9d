// convert: the same values in another float dtype.
import { shown } from '../errors';
import type { DType } from '../tensor/dtype';
import { conversion, type Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import type { NdArray } from './reference';

const op = defineOp('convert', { x: 'in', into: 'inout', out: 'out' });

/**
 * Rounds to nearest even; beyond the range to infinity; NaN stays NaN. With the dtype of x: a contiguous copy.
 * @param x float32, bfloat16 or float16 of any shape (free row stride)
 * @returns the shape of x
 * @throws LinattnError ERR_DTYPE
 */
export function convert<D extends Float>(input: { x: Tensor<Float>; dtype: D }): Tensor<D> {
  const { x, dtype } = op.input(input);
  op.dtype('x', x, floats);
  if (!floats.includes(dtype)) throw op.error('ERR_DTYPE', `dtype must be ${floats.join(' or ')}, got ${shown(dtype)}`);
  const out = op.output(x, dtype, x.shape);
  op.run({ x, out });
  return out;
}

/** x itself where it is of this dtype already, else converted. */
export const converted = <D extends Float>(x: Tensor<Float>, dtype: D): Tensor<D> =>
  x.dtype === dtype ? (x as Tensor<D>) : convert({ x, dtype });

const isFloat = (dtype: DType): dtype is Float => (floats as readonly DType[]).includes(dtype);

conversion.convert = (x, dtype) => {
  if (isFloat(x.dtype) && isFloat(dtype)) return convert({ x: x as Tensor<Float>, dtype });
  throw op.error('ERR_UNSUPPORTED', `x of ${x.dtype} cannot become ${dtype}: both must be ${floats.join(' or ')}`);
};

/**
 * The same into memory that is there.
 * @param into float32, bfloat16 or float16 of the shape of x (free row stride), overwritten
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE
 */
export function convertInto(input: { x: Tensor<Float>; into: Tensor<Float> }): void {
  const { x, into } = op.input(input);
  op.dtype('x', x, floats);
  op.dtype('into', into, floats);
  if (into.shape.length !== x.shape.length || into.shape.some((size, i) => size !== x.shape[i])) {
    throw op.error('ERR_SHAPE', `into must be [${x.shape.join(', ')}] as x, got [${into.shape.join(', ')}]`);
  }
  op.run({ x, into });
}

/** The values stay the same: float64 oracle before rounding. */
export const convertReference = (x: NdArray): NdArray => x;

/** Reads x, writes out. */
export const convertCost = (values: number, bytesOfX: number, bytesOfOut: number) => ({
  bytes: values * (bytesOfX + bytesOfOut),
  flops: 0,
});
