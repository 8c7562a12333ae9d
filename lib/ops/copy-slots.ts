// copySlots: copies whole slots inside a pool, for checkpoints and forks.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';

const op = defineOp('copySlots', { pool: 'inout', from: 'in', to: 'in', copied: 'out' });

/**
 * pool[to[i]] = pool[from[i]] for every i where neither is -1.
 * @param pool [slots, ...] of any dtype (free slot stride), changed in place
 * @param from int32 [n], each -1 or a slot; may repeat
 * @param to int32 [n], each -1 or a slot; distinct, and none of them is in `from`
 * @returns int32 [n]: the slots written, -1 where nothing was. A pool of transactional memory is not tainted by a copy
 *   that fails; this is.
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE; when run ERR_ARGUMENT for slots out of range or not distinct, and then
 *   nothing is copied
 */
export function copySlots(input: { pool: Tensor; from: Tensor<'int32'>; to: Tensor<'int32'> }): Tensor<'int32'> {
  const { pool, from, to } = op.input(input);
  if (op.tensor('pool', pool).shape.length === 0) throw op.error('ERR_SHAPE', 'pool must be [slots, ...], got []');
  const [n] = op.shape('from', from, ['n']);
  op.expect('from', from, 'int32', { n: n! });
  op.expect('to', to, 'int32', { n: n! });
  const copied = op.output(pool, 'int32', [n!]);
  op.run({ pool, from, to, copied });
  return copied;
}

/** The pool after the copies; rows of `width` values. */
export function copySlotsReference<T>(pool: readonly T[], width: number, from: number[], to: number[]): T[] {
  const out = pool.slice();
  from.forEach((source, i) => {
    if (source < 0 || to[i]! < 0) return;
    for (let j = 0; j < width; j++) out[to[i]! * width + j] = pool[source * width + j]!;
  });
  return out;
}

/** Reads and writes each slot once. */
export const copySlotsCost = (slots: number, bytesPerSlot: number) => ({ bytes: 2 * slots * bytesPerSlot, flops: 0 });
