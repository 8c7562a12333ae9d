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
