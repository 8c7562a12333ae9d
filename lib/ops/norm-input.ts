// What rmsNorm and layerNorm ask of their input alike.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { floats } from './float';
import type { Fields, Op } from './op';

/** Checks x [T, C] or [T, H, D], its weight, eps and the group size, which it returns. */
export function checkNorm(
  op: Op<Fields>,
  x: Tensor,
  weight: Tensor,
  eps: number,
  groupSize: number | undefined,
): number {
  op.dtype('x', x, floats);
  const sizes = op.shape('x', x, x.shape.length === 3 ? ['T', 'H', 'D'] : ['T', 'C']);
  const last = sizes.at(-1)!;
  const perHead = sizes.length === 3 && weight?.shape?.[0] !== last;
  op.expect('weight', weight, 'float32', perHead ? { 'H * D': sizes[1]! * last } : { C: last });
  op.check(eps >= 0 && Number.isFinite(eps), `eps must be finite and at least 0, got ${shown(eps)}`);
  const group = groupSize === undefined ? last : groupSize;
  const divides = Number.isSafeInteger(group) && group > 0 && last % group === 0;
  op.check(divides, `groupSize must divide the last dimension ${last}, got ${shown(group)}`);
  return group;
}
