// commitStep: makes a step count. The halves of each sequence's state change places and its length grows; until then
// nothing that the step wrote is seen. A step that failed leaves the table as it was.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';

const op = defineOp('commitStep', { rows: 'in', offsets: 'optional', after: 'optional', table: 'inout' });

/**
 * Commits a prefill slice: `offsets` (int32 [N + 1]) tells its tokens, `after` is an output of it, so that a failure
 * skips the commit. Without both: commits the decode step that has ended, if there is one.
 */
export function commitStep(
  rows: Tensor<'int32'>,
  table: Tensor<'int32'>,
  slice?: { offsets: Tensor<'int32'>; after: Tensor },
): void {
  const [N] = op.shape('rows', rows, ['N']);
  op.shape('table', table, ['slots', '16']);
  if (slice !== undefined) {
    op.expect('offsets', op.input(slice, 'slice').offsets, 'int32', { 'N + 1': N! + 1 });
    op.tensor('after', slice.after);
  }
  op.run({ rows, table, ...slice });
}
