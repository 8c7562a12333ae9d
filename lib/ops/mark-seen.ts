// markSeen: notes the tokens of each sequence for the repetition penalty of `sample`.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { tokenWords } from './sampling-table';

const op = defineOp('markSeen', {
  seen: 'inout',
  rows: 'in',
  offsets: 'in',
  tokens: 'in',
  vocab: 'number',
  clear: 'number',
});

/**
 * Sets the bits of each row's tokens in its slot's set. A sequence marks every token it consumes, so a step that samples
 * has marked the whole text before the token; a session that goes back marks its tokens again with `clear`.
 * @param seen int32 [slots, ceil(vocab / 32)], in place; token i is bit i % 32 of word i / 32
 * @param rows int32 [N], each -1 or a slot, distinct
 * @param offsets int32 [N + 1], tokens of each row
 * @param tokens int32 [T]
 * @param clear empty the rows' sets first
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE; when run ERR_ARGUMENT for slots, offsets or tokens out of range, and then
 *   nothing is marked
 */
export function markSeen(input: {
  seen: Tensor<'int32'>;
  rows: Tensor<'int32'>;
  offsets: Tensor<'int32'>;
  tokens: Tensor<'int32'>;
  vocab: number;
  clear?: boolean;
}): void {
  const { seen, rows, offsets, tokens, vocab, clear = false } = op.input(input);
  const whole = Number.isSafeInteger(vocab) && vocab > 0;
  op.check(whole, `vocab must be a whole number from 1, got ${shown(vocab)}`);
  const [slots] = op.shape('seen', seen, ['slots', 'words']);
  op.expect('seen', seen, 'int32', { slots: slots!, words: tokenWords(vocab) });
  const [N] = op.shape('rows', rows, ['N']);
  op.expect('rows', rows, 'int32', { N: N! });
  op.expect('offsets', offsets, 'int32', { 'N + 1': N! + 1 });
  const [T] = op.shape('tokens', tokens, ['T']);
  op.expect('tokens', tokens, 'int32', { T: T! });
  op.run({ seen, rows, offsets, tokens, vocab, clear });
}

/** The set of a slot after its tokens are marked. */
export const markSeenReference = (seen: ReadonlySet<number>, tokens: readonly number[], clear: boolean): Set<number> =>
  new Set([...(clear ? [] : seen), ...tokens]);

/** Reads the tokens; with `clear` writes the sets. */
export const markSeenCost = (tokens: number, rows: number, vocab: number, clear: boolean) => ({
  bytes: 8 * tokens + (clear ? 4 * rows * tokenWords(vocab) : 0),
  flops: 0,
});
