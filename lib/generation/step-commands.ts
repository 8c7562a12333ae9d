// The commands of each kind of step, in the order of the device's queue.
import { linattnError } from '../errors';
import type { LanguageModel } from '../model/language-model';
import { beginStep } from '../ops/begin-step';
import { commitStep } from '../ops/commit-step';
import { convert } from '../ops/convert';
import { endStep } from '../ops/end-step';
import { gatherRows } from '../ops/gather-rows';
import { markSeen } from '../ops/mark-seen';
import { type ProductPath, withProductPath } from '../ops/product-path';
import { sample } from '../ops/sample';
import { Sequences } from '../ops/sequences';
import type { SequenceState, SequenceStore } from '../state/sequence-store';
import type { DeviceName } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { readSampled } from './decode-graphs';
import { hasOutput, type Piece } from './prefill-line';

export class StepCommands {
  constructor(
    readonly network: LanguageModel,
    private readonly store: SequenceStore,
    private readonly device: DeviceName,
    private readonly pieceTokens: number | undefined,
  ) {}

  /**
   * Enqueues a step of prompts with its commit. Returns for each piece that has an output, in their order, the logits of the
   * next token or the hidden states; or where none has some output to wait for.
   */
  prompts(given: readonly Piece[]): Tensor[] {
    // Pieces of one token come first in a step: they take the step kernels.
    const singles = given.filter(({ size }) => size === 1);
    const pieces = [...singles, ...given.filter(({ size }) => size > 1)];
    const ends: number[] = [0];
    for (const { size } of pieces) ends.push(ends.at(-1)! + size);
    const packed = new Int32Array(ends.at(-1)!);
    for (const [i, { entry, size }] of pieces.entries()) {
      packed.set(entry.job.tokens.subarray(entry.at, entry.at + size), ends[i]!);
    }
    const endOf = (piece: Piece): number => ends[pieces.indexOf(piece) + 1]!;
    const predicted = given.filter(({ entry, last }) => last && entry.job.onHidden === undefined);
    const { table } = this.store;
    return scope(() => {
      const rows = this.ints(pieces.map(({ entry }) => entry.job.sequence.slot));
      const offsets = this.ints(ends);
      const { readSlots, writeSlots, positions } = beginStep(rows, offsets, table, false);
      const sizes = {
        rows: pieces.length,
        tokens: packed.length,
        // Where it is always the same, the longest piece of a step changes no kernel of the others.
        maxTokens: this.pieceTokens ?? Math.max(...pieces.map(({ size }) => size)),
        singleRows: singles.length,
      };
      const sequences = new Sequences({ ...sizes, offsets, readSlots, writeSlots, positions }, this.pieceTokens);
      const ids = this.ints(packed);
      const hidden = this.products('manyRows', () => this.network.hidden(ids, { sequences, rows }));
      const lastTokens = predicted.map((piece) => endOf(piece) - 1);
      const logitsOf = (tokens: number[]) => this.network.logits(hidden, this.ints(tokens));
      const after = lastTokens.length > 0 ? this.products('manyRows', () => logitsOf(lastTokens)) : hidden;
      commitStep(rows, table, { offsets, after });
      const outputs = given.filter(hasOutput);
      if (outputs.length < 2 && outputs.length === predicted.length) return [after];
      // Each checkpoint owns its logits.
      return outputs.map((piece) => {
        const row = predicted.indexOf(piece);
        if (row >= 0) return gatherRows({ x: after, rows: this.ints([row]) });
        const tokens = Int32Array.from({ length: piece.size }, (_, i) => endOf(piece) - piece.size + i);
        const states = gatherRows({ x: hidden, rows: this.ints(tokens) });
        return states.dtype === 'float32' ? states : convert({ x: states, dtype: 'float32' });
      });
    });
  }

  /** What a decode step of B rows enqueues; recorded once a batch size. Returns the `sampled` of sample. */
  decode(rows: Tensor<'int32'>, offsets: Tensor<'int32'>): Tensor<'int32'> {
    const { table, stopIds, sampling } = this.store;
    const count = rows.shape[0]!;
    const { readSlots, writeSlots, positions, nextPositions, tokens } = beginStep(rows, offsets, table, true);
    // Deterministic, a bound above 1 says that how a row is cut may not follow from how many there are.
    const bound = this.pieceTokens === undefined ? 1 : 2;
    const sizes = { rows: count, tokens: count, maxTokens: bound, singleRows: count };
    const sequences = new Sequences({ ...sizes, offsets, readSlots, writeSlots, positions }, Math.max(bound, count));
    markSeen({ seen: sampling.seen, rows, offsets, tokens: tokens!, vocab: this.network.vocabularySize });
    const step = { sequences, rows };
    const logits = this.products('fewRows', () => this.network.logits(this.network.hidden(tokens!, step)));
    const { sampled, token } = sample({ logits, rows, positions: nextPositions, ...sampling });
    endStep(rows, token, stopIds, table, true);
    return sampled;
  }

  /** Samples the token after the prompt from `sequence.logits`; it becomes the pending one. */
  async first(sequence: SequenceState): Promise<readonly [token: number, logprob: number]> {
    const { table, stopIds, sampling } = this.store;
    const logits = sequence.logits;
    if (logits === undefined)
      throw linattnError('ERR_ARGUMENT', 'generate: the state has no next token: read a prompt first');
    const made = scope(() => {
      const rows = this.ints([sequence.slot]);
      const { sampled, token } = sample({ logits, rows, positions: this.ints([sequence.length]), ...sampling });
      endStep(rows, token, stopIds, table, false);
      return sampled;
    });
    try {
      const [tokens, logprobs] = await readSampled(made);
      return [tokens[0]!, logprobs[0]!];
    } finally {
      made.dispose();
    }
  }

  /** Enqueues the commit of a sequence's decode step that has ended. */
  commit(sequence: SequenceState): void {
    scope(() => commitStep(this.ints([sequence.slot]), this.store.table));
  }

  /** Deterministic, the kernels of products follow from the kind of the step, not from how many rows it has. */
  private products<T>(path: ProductPath, enqueue: () => T): T {
    return this.pieceTokens === undefined ? enqueue() : withProductPath(path, enqueue);
  }

  private ints(values: ArrayLike<number>): Tensor<'int32'> {
    return Tensor.from(Int32Array.from(values), { dtype: 'int32', shape: [values.length], device: this.device });
  }
}
