// The one scheduler of a model: it owns the sequences' device side and the recorded steps; sessions submit rows. Each turn
// of its loop enqueues one decode step for all rows that decode and one slice of one prompt, so that a long prompt does
// not hold up the others. A decode step is enqueued before the one in front of it is read: the device never waits for
// JavaScript, and at most one step is uncommitted.
import { linattnError } from '../errors';
import type { LanguageModel } from '../model/language-model';
import { beginStep } from '../ops/begin-step';
import { commitStep } from '../ops/commit-step';
import { endStep } from '../ops/end-step';
import { markSeen } from '../ops/mark-seen';
import { sample } from '../ops/sample';
import { Sequences } from '../ops/sequences';
import type { SequenceState, SequenceStore } from '../state/sequence-store';
import type { DeviceName } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { DecodeGraphs } from './decode-graphs';
import type { Scheduling } from './scheduling';

/**
 * Tokens of a prefill slice: enough to keep the device busy, few enough that an abort is soon seen. Slices end on multiples
 * of 64 of the absolute position except at the prompt's end.
 */
export const sliceTokensOf = (device: DeviceName): number => (device === 'cpu' ? 512 : 4096);

export interface PrefillJob {
  readonly sequence: SequenceState;
  readonly tokens: Int32Array;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (done: number) => void;
}

export interface DecodeJob {
  readonly sequence: SequenceState;
  /** The token that ends the prompt's part: already pending on the device. */
  readonly signal: AbortSignal | undefined;
  /** Called once a sampled token; false ends the sequence, which leaves the token pending. */
  readonly accept: (token: number, logprob: number) => boolean;
}

interface Waiting<J> {
  readonly job: J;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Prefilling extends Waiting<PrefillJob> {
  at: number;
}

interface Decoding extends Waiting<DecodeJob> {
  /** Steps enqueued for it, and of those the ones read. */
  enqueued: number;
  read: number;
  ended: boolean;
}

interface StepInFlight {
  readonly rows: readonly Decoding[];
  readonly sampled: Promise<readonly [Int32Array, Float32Array]>;
}

export class Scheduler {
  private readonly prefilling: Prefilling[] = [];
  private decoding: Decoding[] = [];
  private readonly graphs: DecodeGraphs;
  private readonly sliceTokens: number;
  private running = false;

  constructor(
    private readonly network: LanguageModel,
    readonly store: SequenceStore,
    private readonly device: DeviceName,
    scheduling: Scheduling,
  ) {
    this.sliceTokens = scheduling.stepTokens;
    this.graphs = new DecodeGraphs(device, (rows, offsets) => this.decodeStep(rows, offsets));
  }

  /** Reads tokens into a sequence, slice by slice; resolves when all are committed and `sequence.logits` are there. */
  prefill(job: PrefillJob): Promise<void> {
    return new Promise((resolve, reject) => {
      this.prefilling.push({ job, resolve, reject, at: 0 });
      this.start();
    });
  }

  /** Decodes from the pending token until `accept` says no. The last token given to it stays pending. */
  decode(job: DecodeJob): Promise<void> {
    return new Promise((resolve, reject) => {
      this.decoding.push({ job, resolve, reject, enqueued: 0, read: 0, ended: false });
      this.start();
    });
  }

  /** Samples the token after the prompt from `sequence.logits`; it becomes the pending one. */
  async first(sequence: SequenceState): Promise<readonly [token: number, logprob: number]> {
    const { table, stopIds, sampling } = this.store;
    const logits = sequence.logits;
    if (logits === undefined)
      throw linattnError('ERR_ARGUMENT', 'generate: the state has no next token: read a prompt first');
    const made = scope(() => {
      const rows = this.ints([sequence.slot]);
      const { token, logprob } = sample({ logits, rows, positions: this.ints([sequence.length]), ...sampling });
      endStep(rows, token, stopIds, table, false);
      return { token, logprob };
    });
    try {
      const [tokens, logprobs] = await Promise.all([made.token.read(), made.logprob.read()]);
      return [tokens[0]!, logprobs[0]!];
    } finally {
      made.token.dispose();
      made.logprob.dispose();
    }
  }

  private ints(values: ArrayLike<number>): Tensor<'int32'> {
    return Tensor.from(Int32Array.from(values), { dtype: 'int32', shape: [values.length], device: this.device });
  }

  private start(): void {
    if (this.running) return;
    this.running = true;
    void this.loop().finally(() => {
      this.running = false;
      if (this.prefilling.length + this.decoding.length > 0) this.start();
    });
  }

  private async loop(): Promise<void> {
    const inFlight: StepInFlight[] = [];
    while (this.prefilling.length + this.decoding.length + inFlight.length > 0) {
      while (inFlight.length < 2 && this.enqueueDecode(inFlight));
      const slice = this.prefilling.shift();
      const reading = slice === undefined ? undefined : this.slice(slice);
      const step = inFlight.shift();
      if (step !== undefined) await this.deliver(step);
      await reading;
    }
  }

  /** One slice of a prompt; the rest goes to the end of the line. */
  private async slice(entry: Prefilling): Promise<void> {
    const { sequence, tokens, signal, onProgress } = entry.job;
    try {
      signal?.throwIfAborted();
      const from = sequence.length;
      const left = tokens.length - entry.at;
      const grid = Math.floor((from + this.sliceTokens) / 64) * 64 - from;
      const size = left <= this.sliceTokens ? left : grid;
      this.store.reserve(sequence, from, from + size);
      const last = size === left;
      const result = this.enqueueSlice(sequence, tokens.subarray(entry.at, entry.at + size), last);
      try {
        await result.wait();
      } catch (error) {
        result.dispose();
        throw error;
      }
      sequence.length = from + size;
      entry.at += size;
      if (last) {
        await this.store.checkpoint(sequence, result as Tensor<'float32'>);
      } else {
        sequence.logits = undefined;
        result.dispose();
      }
      onProgress(entry.at);
      if (last) entry.resolve();
      else this.prefilling.push(entry);
    } catch (error) {
      entry.reject(error);
    }
  }

  /** Enqueues a slice with its commit. Returns the logits of the next token, or some output to wait for. */
  private enqueueSlice(sequence: SequenceState, tokens: Int32Array, last: boolean): Tensor {
    const { table } = this.store;
    return scope(() => {
      const rows = this.ints([sequence.slot]);
      const offsets = this.ints([0, tokens.length]);
      const { readSlots, writeSlots, positions } = beginStep(rows, offsets, table, false);
      const count = tokens.length;
      const sizes = { rows: 1, tokens: count, maxTokens: count, singleRows: count === 1 ? 1 : 0 };
      const sequences = new Sequences({ ...sizes, offsets, readSlots, writeSlots, positions });
      const hidden = this.network.hidden(this.ints(tokens), { sequences, rows });
      const after = last ? this.network.logits(hidden, this.ints([count - 1])) : hidden;
      commitStep(rows, table, { offsets, after });
      return after as Tensor;
    });
  }

  /** What a decode step of B rows enqueues; recorded once a batch size. */
  private decodeStep(
    rows: Tensor<'int32'>,
    offsets: Tensor<'int32'>,
  ): { token: Tensor<'int32'>; logprob: Tensor<'float32'> } {
    const { table, stopIds, sampling } = this.store;
    const count = rows.shape[0]!;
    const { readSlots, writeSlots, positions, nextPositions, tokens } = beginStep(rows, offsets, table, true);
    const sizes = { rows: count, tokens: count, maxTokens: 1, singleRows: count };
    const sequences = new Sequences({ ...sizes, offsets, readSlots, writeSlots, positions });
    markSeen({ seen: sampling.seen, rows, offsets, tokens: tokens!, vocab: this.network.vocabularySize });
    const logits = this.network.logits(this.network.hidden(tokens!, { sequences, rows }));
    const { token, logprob } = sample({ logits, rows, positions: nextPositions, ...sampling });
    endStep(rows, token, stopIds, table, true);
    return { token, logprob };
  }

  /** One more step for every row that decodes; false when there is nothing to enqueue. */
  private enqueueDecode(inFlight: StepInFlight[]): boolean {
    const rows: Decoding[] = [];
    for (const row of this.decoding) {
      const { sequence, signal } = row.job;
      try {
        signal?.throwIfAborted();
        const position = sequence.length + row.enqueued;
        this.store.reserve(sequence, position, position + 1);
        rows.push(row);
      } catch (error) {
        this.end(row, error);
      }
    }
    this.decoding = this.decoding.filter((row) => !row.ended);
    if (rows.length === 0) return false;
    for (const row of rows) row.enqueued++;
    const sampled = this.graphs.step(rows.map((row) => row.job.sequence.slot));
    sampled.catch(() => undefined); // deliver() awaits it later
    inFlight.push({ rows, sampled });
    return true;
  }

  private async deliver(step: StepInFlight): Promise<void> {
    let sampled: readonly [Int32Array, Float32Array] | undefined;
    let failure: unknown;
    try {
      sampled = await step.sampled;
    } catch (error) {
      failure = error;
    }
    for (const [i, row] of step.rows.entries()) {
      if (row.ended) continue;
      if (sampled === undefined) {
        this.end(row, failure);
        continue;
      }
      row.read++;
      try {
        if (!row.job.accept(sampled[0][i]!, sampled[1][i]!)) this.end(row);
      } catch (error) {
        this.end(row, error);
      }
    }
    this.decoding = this.decoding.filter((row) => !row.ended);
  }

  /**
   * Ends a row. The steps that were read are committed, a step in flight behind them is not: its begin has committed the
   * one before, and its own effects are dropped here, after it, in the order of the queue.
   */
  private end(row: Decoding, error?: unknown): void {
    row.ended = true;
    const { sequence } = row.job;
    if (row.enqueued > row.read) {
      this.store.setRow(sequence, 'uncommitted', 0);
    } else if (row.read > 0) {
      scope(() => commitStep(this.ints([sequence.slot]), this.store.table));
    }
    sequence.length += row.read;
    if (row.read > 0) sequence.logits = undefined;
    if (error === undefined) row.resolve();
    else row.reject(error);
  }

  dispose(): void {
    this.graphs.dispose();
  }
}
