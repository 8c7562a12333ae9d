// gatherRows: some rows of a tensor, such as the last token of each sequence before the output head.
import type { DType } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('gatherRows', { x: 'in', rows: 'in', out: 'out' });

/**
 * out[m] = x[rows[m]].
 * @param x any dtype [T, C] (free row stride)
 * @param rows int32 [M], each in [0, T): another is ERR_ARGUMENT when the command runs
 * @returns [M, C], as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function gatherRows<D extends DType>(input: { x: Tensor<D>; rows: Tensor<'int32'> }): Tensor<D> {
  const { x, rows } = op.input(input);
  const [, C] = op.shape('x', x, ['T', 'C']) as [number, number];
  const [M] = op.shape('rows', rows, ['M']) as [number];
  op.dtype('rows', rows, ['int32']);
  const out = op.output(x, x.dtype, [M, C]);
  op.run({ x, rows, out });
  return out;
}

/** float64 oracle. */
export function gatherRowsReference(x: NdArray, rows: readonly number[]): NdArray {
  const C = x.shape[1]!;
  const out = nd([rows.length, C]);
  rows.forEach((row, m) => {
    out.data.set(x.data.subarray(row * C, (row + 1) * C), m * C);
  });
  return out;
}

/** Reads and writes each row. */
export const gatherRowsCost = (rows: number, width: number, bytesPerValue: number) => ({
  bytes: 2 * rows * width * bytesPerValue,
  flops: 0,
});
