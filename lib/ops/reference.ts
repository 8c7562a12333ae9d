// Plain float64 arrays for the references of the ops: what an op means, written as loops, never used to run one.

export interface NdArray {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/** An array of zeros, or of the given row-major values. */
export function nd(shape: readonly number[], data?: ArrayLike<number>): NdArray {
  const size = shape.reduce((product, dim) => product * dim, 1);
  if (data !== undefined && data.length !== size)
    throw new RangeError(`[${shape.join(', ')}] is not ${data.length} values`);
  return { shape: shape.slice(), data: data === undefined ? new Float64Array(size) : Float64Array.from(data) };
}
