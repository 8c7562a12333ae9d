// What a store knows of a sequence, and of a state that is kept.
import type { Tensor } from '../tensor/tensor';
import type { HeldPages } from './page-pool';

/** A state that sequences can go back to or start from; snapshots hold one too. */
export interface Checkpoint {
  readonly length: number;
  readonly slot: number;
  readonly pages: readonly HeldPages[];
  /** Of the next token, [1, vocabulary]. */
  readonly logits: Tensor<'float32'>;
  /** Sequences and snapshots that hold it; freed when nobody does. */
  holders: number;
}

/** One sequence. */
export interface SequenceState {
  /** Row in every table. */
  readonly slot: number;
  /** The two halves of its state. */
  readonly halves: readonly [number, number];
  readonly pages: readonly HeldPages[];
  /** Committed tokens. */
  length: number;
  /** Of the next token, [1, vocabulary]; absent after a decode step. Owned by the newest checkpoint. */
  logits: Tensor<'float32'> | undefined;
  checkpoints: Checkpoint[];
}

/**
 * Checkpoints that are not the newest of any sequence, each with the sequences that have it. Not those that a snapshot or
 * the cache holds too: their states would not become free.
 */
export function spareCheckpoints(sequences: Iterable<SequenceState>): [Checkpoint, SequenceState[]][] {
  const sharers = new Map<Checkpoint, SequenceState[]>();
  for (const sequence of sequences) {
    if (sequence.checkpoints.length < 2) continue; // most of a thousand, where memory is short
    for (const spare of sequence.checkpoints.slice(0, -1)) {
      const others = sharers.get(spare);
      if (others === undefined) sharers.set(spare, [sequence]);
      else others.push(sequence);
    }
  }
  return [...sharers].filter(([{ holders }, { length }]) => length === holders);
}
