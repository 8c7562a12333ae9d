// endStep: hands the sampled tokens to the table of sequences. After a prompt the token becomes the pending one; after a
// decode step it waits for that step's commit. Stops that the device can see (stop ids, tokens left) end the sequence here.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';

const op = defineOp('endStep', { rows: 'in', sampled: 'in', stopIds: 'in', table: 'inout', consumed: 'number' });

/**
 * @param rows int32 [N]; -1 = nothing
 * @param sampled int32 [N]
 * @param stopIds int32 [slots, M], -1 = none
 * @param table int32 [slots, 16]
 * @param consumed whether the step consumed a pending token (decode)
 */
export function endStep(
  rows: Tensor<'int32'>,
  sampled: Tensor<'int32'>,
  stopIds: Tensor<'int32'>,
  table: Tensor<'int32'>,
  consumed: boolean,
): void {
  const [N] = op.shape('rows', rows, ['N']);
  op.expect('sampled', sampled, 'int32', { N: N! });
  const [slots] = op.shape('table', table, ['slots', '16']);
  op.expect('stopIds', stopIds, 'int32', { slots: slots!, M: op.tensor('stopIds', stopIds).shape[1] ?? 0 });
  op.flag('consumed', consumed);
  op.run({ rows, sampled, stopIds, table, consumed });
}
