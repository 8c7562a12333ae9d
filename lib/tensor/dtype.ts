// Element types, and the typed array that holds each in JavaScript. The order is that of native/core/dtype.h.

/** 16-bit floats are held as their bits. */
export interface DTypes {
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
}
export type DType = keyof DTypes;

export const dtypes = ['float32', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'int64'] as const;

const arrays = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
} as const;

export const dtypeNumber = (dtype: DType): number => dtypes.indexOf(dtype);
export const dtypeBytes = (dtype: DType): number => arrays[dtype].BYTES_PER_ELEMENT;

/** A zeroed typed array for `count` elements. */
export function newArray<D extends DType>(dtype: D, count: number): DTypes[D] {
  return new arrays[dtype](count) as DTypes[D];
}

/** A typed array of `dtype` with these values; numbers for 16-bit floats are rounded to nearest even. */
export function arrayFrom<D extends DType>(dtype: D, values: ArrayLike<number>): DTypes[D] {
  if (dtype === 'int64') return BigInt64Array.from(values, (value) => BigInt(Math.trunc(value))) as DTypes[D];
  const array = newArray(dtype, values.length) as Uint16Array;
  if (dtype === 'bfloat16') for (let i = 0; i < array.length; i++) array[i] = toBFloat16(values[i]!);
  else if (dtype === 'float16') for (let i = 0; i < array.length; i++) array[i] = toFloat16(values[i]!);
  else array.set(values);
  return array as DTypes[D];
}

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);
/** From here on a float64 has no fraction: added to a number below 2^51, it rounds that to nearest, ties to even. */
const wholeNumbers = 2 ** 52;

/** The bits of the bfloat16 nearest to a number; ties go to even. */
export function toBFloat16(value: number): number {
  float[0] = value;
  const word = bits[0]!;
  if ((word & 0x7fffffff) > 0x7f800000) return (word >>> 16) | 0x40;
  return ((word + 0x7fff + ((word >>> 16) & 1)) >>> 16) & 0xffff;
}

export function fromBFloat16(half: number): number {
  bits[0] = half << 16;
  return float[0]!;
}

/** The bits of the IEEE half nearest to a number; ties go to even. */
export function toFloat16(value: number): number {
  const sign = Object.is(value, -0) || value < 0 ? 0x8000 : 0;
  const size = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (size >= 65520) return sign | 0x7c00;
  float[0] = size;
  const exponent = Math.max((bits[0]! >>> 23) - 127, -14);
  bits[0] = (exponent - 10 + 127) << 23;
  const steps = size / float[0]! + wholeNumbers - wholeNumbers;
  return sign | (exponent === -14 ? steps : ((exponent + 14) << 10) + steps);
}

export function fromFloat16(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
