// countNan: how many elements are NaN.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import type { NdArray } from './reference';

const op = defineOp('countNan', { x: 'in', out: 'out' });

/** x: any float, any shape, contiguous -> int32 [1]; the count stops at 2^31 - 1. @throws LinattnError ERR_DTYPE */
export function countNan(x: Tensor): Tensor<'int32'> {
  op.dtype('x', x, ['float32', 'bfloat16', 'float16']);
  const out = op.output(x, 'int32', [1]);
  op.run({ x, out });
  return out;
}

export const countNanReference = (x: NdArray): number =>
  x.data.reduce((sum, value) => sum + (Number.isNaN(value) ? 1 : 0), 0);

export const countNanCost = (x: Tensor): { bytes: number; flops: number } => ({ bytes: x.byteLength, flops: 0 });
