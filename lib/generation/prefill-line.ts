// The prompts that wait to be read, and which of their tokens the next step takes. Higher levels go first, then the prompt
// with the fewest tokens left; a prompt that steps pass over rises, so that none starves.
import { pageTokens } from '../layers/layer';
import type { SequenceState } from '../state/sequence-store';

export interface PrefillJob {
  readonly sequence: SequenceState;
  readonly tokens: Int32Array;
  /** Higher goes first. */
  readonly priority: number;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (done: number) => void;
  /** Given the hidden states float32 [t, C] of each piece in order; then there are no logits and no checkpoint. */
  readonly onHidden?: (hidden: Float32Array, tokens: number) => void;
}

/** Steps in a row that pass over a prompt before it rises by one level of priority. */
export const stepsALevel = 8;

export class Prefilling {
  /** Tokens read so far. */
  at = 0;
  /** Steps that passed over it since it was last served. */
  passedOver = 0;

  constructor(
    readonly job: PrefillJob,
    readonly resolve: () => void,
    readonly reject: (error: unknown) => void,
  ) {}

  get left(): number {
    return this.job.tokens.length - this.at;
  }

  get level(): number {
    return this.job.priority + Math.floor(this.passedOver / stepsALevel);
  }
}

/** What a step reads of one prompt. */
export interface Piece {
  readonly entry: Prefilling;
  readonly size: number;
  /** The prompt ends with it. */
  readonly last: boolean;
}

/** Whether a step makes something of a piece: the logits of the next token, or the hidden states. */
export const hasOutput = ({ entry, last }: Piece): boolean => last || entry.job.onHidden !== undefined;

export class PrefillLine {
  private entries: Prefilling[] = [];

  /** @param pieceTokens a multiple of 64: pieces end at every multiple of it, and nowhere else before a prompt's end */
  constructor(private readonly pieceTokens?: number) {}

  get length(): number {
    return this.entries.length;
  }

  push(entry: Prefilling): void {
    this.entries.push(entry);
  }

  /**
   * Takes out of the line what the next step reads: of several prompts, at most `budget` (>= 64) tokens together, or one
   * piece where their ends are given and it is longer. Pieces end on multiples of 64 of the absolute position, except at a
   * prompt's end. Entries whose signal is aborted are rejected.
   */
  next(budget: number): Piece[] {
    this.rejectAborted();
    const order = [...this.entries].sort((a, b) => b.level - a.level || a.left - b.left);
    const pieces: Piece[] = [];
    let room = budget;
    for (const entry of order) {
      const size = this.sizeOf(entry, room, pieces.length === 0);
      if (size <= 0) continue;
      pieces.push({ entry, size, last: size === entry.left });
      room -= size;
    }
    const taken = new Set(pieces.map(({ entry }) => entry));
    this.entries = this.entries.filter((entry) => !taken.has(entry));
    for (const entry of this.entries) entry.passedOver++;
    for (const entry of taken) entry.passedOver = 0;
    return pieces;
  }

  /** Tokens of a prompt that fit into `room`, 0 or less for none; `first`: of the step. */
  private sizeOf({ left, job }: Prefilling, room: number, first: boolean): number {
    const from = job.sequence.length;
    if (this.pieceTokens !== undefined) {
      const size = Math.min(left, this.pieceTokens - (from % this.pieceTokens));
      return first || size <= room ? size : 0;
    }
    return left <= room ? left : Math.floor((from + room) / pageTokens) * pageTokens - from;
  }

  private rejectAborted(): void {
    this.entries = this.entries.filter((entry) => {
      const { signal } = entry.job;
      if (signal?.aborted) entry.reject(signal.reason);
      return !signal?.aborted;
    });
  }
}
