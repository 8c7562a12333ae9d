// One slot of a pool copied to another.
import { copySlots } from '../ops/copy-slots';
import { Tensor } from '../tensor/tensor';

/** Enqueues pool[to] = pool[from]. */
export function copySlot(pool: Tensor, from: number, to: number): void {
  const slots = (slot: number) => Tensor.from([slot], { dtype: 'int32', shape: [1], device: pool.device });
  const [source, target] = [slots(from), slots(to)];
  const copied = copySlots({ pool, from: source, to: target });
  for (const tensor of [source, target, copied]) tensor.dispose();
}
