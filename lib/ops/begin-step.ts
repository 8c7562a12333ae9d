// beginStep: from the rows of a step to what its ops need. Commits the decode step that has ended before it, then reads the
// table of sequences: state slots to read and to write, positions and, in decode, the pending tokens.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';

/** int32 a sequence in the table; native/ops/step-table.h names them. */
export const stepRowInts = 16;
/** Index of each field in a table row. */
export const stepRow = {
  read: 0,
  write: 1,
  length: 2,
  token: 3,
  uncommitted: 4,
  nextToken: 5,
  live: 6,
  remaining: 7,
  spare: 8,
  processed: 9,
};

const op = defineOp('beginStep', {
  rows: 'in',
  offsets: 'in',
  table: 'inout',
  readSlots: 'out',
  writeSlots: 'out',
  positions: 'out',
  nextPositions: 'out',
  tokens: 'out',
});

export interface StepInputs {
  readSlots: Tensor<'int32'>;
  writeSlots: Tensor<'int32'>;
  /** Tokens already in the state, and the same after this step. */
  positions: Tensor<'int32'>;
  nextPositions: Tensor<'int32'>;
  /** Pending tokens; decode only. */
  tokens?: Tensor<'int32'>;
}

/**
 * @param rows int32 [N], the table row of each sequence of the step; -1 = nothing
 * @param offsets int32 [N + 1], tokens of each sequence
 * @param table int32 [slots, 16]
 * @param decode every sequence consumes its pending token; sequences that are not live are left out
 */
export function beginStep(
  rows: Tensor<'int32'>,
  offsets: Tensor<'int32'>,
  table: Tensor<'int32'>,
  decode: boolean,
): StepInputs {
  const [N] = op.shape('rows', rows, ['N']);
  op.expect('offsets', offsets, 'int32', { 'N + 1': N! + 1 });
  op.shape('table', table, ['slots', '16']);
  op.flag('decode', decode);
  const make = () => op.output(rows, 'int32', [N!]);
  const readSlots = make();
  const writeSlots = make();
  const positions = make();
  const nextPositions = make();
  const tokens = decode ? make() : undefined;
  op.run({ rows, offsets, table, readSlots, writeSlots, positions, nextPositions, tokens });
  const made: StepInputs = { readSlots, writeSlots, positions, nextPositions };
  if (tokens !== undefined) made.tokens = tokens;
  return made;
}
