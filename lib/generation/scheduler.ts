// The one scheduler of a model: it owns the sequences' device side and the recorded steps; sessions submit rows. A step
// decodes one token for every row that decodes, or reads pieces of prompts; where both wait they take turns. Two decode
// steps and one of prompts are enqueued at most: the device never waits for JavaScript, and at most one decode step is
// uncommitted. Whoever comes is in the next step, whoever ends is out of it.
import type { LanguageModel } from '../model/language-model';
import type { SequenceState, SequenceStore } from '../state/sequence-store';
import type { DeviceName } from '../tensor/device';
import type { Tensor } from '../tensor/tensor';
import { DecodeGraphs, mostRows } from './decode-graphs';
import { hasOutput, type Piece, Prefilling, type PrefillJob, PrefillLine } from './prefill-line';
import type { Scheduling } from './scheduling';
import { StepBudget } from './step-budget';
import { StepCommands } from './step-commands';

/**
 * Most tokens of a prefill step: enough to keep the device busy, few enough that an abort is soon seen. Slices end on
 * multiples of 64 of the absolute position except at the prompt's end.
 */
export const sliceTokensOf = (device: DeviceName): number => (device === 'cpu' ? 512 : 16_384);

export interface DecodeJob {
  readonly sequence: SequenceState;
  /** The token that ends the prompt's part: already pending on the device. */
  readonly signal: AbortSignal | undefined;
  /** Called once a sampled token; false ends the sequence, which leaves the token pending. */
  readonly accept: (token: number, logprob: number) => boolean;
}

/** A row that decodes. */
interface Decoding {
  readonly job: DecodeJob;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  /** Steps enqueued for it, and of those the ones read. */
  enqueued: number;
  read: number;
  ended: boolean;
  /** Up to which token its pages are there; none are shared while it decodes. */
  room: number;
  /** Why its signal ended it. */
  abortion: { readonly reason: unknown } | undefined;
  readonly onAbort: () => void;
}

/** At most mostRows rows of a decode step. */
interface DecodePart {
  readonly rows: readonly Decoding[];
  readonly sampled: Promise<readonly [Int32Array, Float32Array]>;
}

export class Scheduler {
  private readonly line: PrefillLine;
  private decoding: Decoding[] = [];
  private readonly steps: StepCommands;
  private readonly graphs: DecodeGraphs;
  private readonly budget: StepBudget;
  private woken = false;
  /** Decode steps that are enqueued and not read. */
  private decodeSteps = 0;
  /** A step of prompts is enqueued and not read. */
  private reading = false;
  /** A decode step was enqueued behind the last step of prompts. */
  private decodedSince = true;
  /** When a step was last seen to be done, ms. */
  private lastDone = 0;

  constructor(
    network: LanguageModel,
    readonly store: SequenceStore,
    device: DeviceName,
    readonly scheduling: Scheduling,
  ) {
    this.budget = new StepBudget(scheduling.targetStepMs, scheduling.stepTokens);
    this.line = new PrefillLine(scheduling.pieceTokens);
    this.steps = new StepCommands(network, store, device, scheduling.pieceTokens);
    this.graphs = new DecodeGraphs(device, (rows, offsets) => this.steps.decode(rows, offsets));
  }

  /** Reads tokens into a sequence, piece by piece; resolves when all are committed and `sequence.logits` are there. */
  prefill(job: PrefillJob): Promise<void> {
    return new Promise((resolve, reject) => {
      this.line.push(new Prefilling(job, resolve, reject));
      this.wake();
    });
  }

  /** Decodes from the pending token until `accept` says no. The last token given to it stays pending. */
  decode(job: DecodeJob): Promise<void> {
    return new Promise((resolve, reject) => {
      const { signal } = job;
      const onAbort = () => {
        row.abortion = { reason: signal!.reason };
      };
      const counts = { enqueued: 0, read: 0, ended: false, room: 0 };
      const row: Decoding = { job, resolve, reject, ...counts, abortion: undefined, onAbort };
      if (signal?.aborted) onAbort();
      else signal?.addEventListener('abort', onAbort, { once: true });
      this.decoding.push(row);
      this.wake();
    });
  }

  /** Samples the token after the prompt from `sequence.logits`; it becomes the pending one. */
  first(sequence: SequenceState): Promise<readonly [token: number, logprob: number]> {
    return this.steps.first(sequence);
  }

  /** A turn after this tick, so that what is submitted together shares a step. */
  private wake(): void {
    if (this.woken) return;
    this.woken = true;
    queueMicrotask(() => {
      this.woken = false;
      this.turn();
    });
  }

  /**
   * Enqueues what may be enqueued now; runs whenever there is something new and whenever a step is done. Two steps of
   * prompts follow each other only when nothing decodes.
   */
  private turn(): void {
    if (this.decodedSince) this.enqueuePrompts();
    while (this.decodeSteps < 2 && !(this.reading && this.decodedSince) && this.enqueueDecode());
    if (this.decodedSince || this.decodeSteps === 0) this.enqueuePrompts();
  }

  /** A step that reads pieces of prompts, unless one is on its way. */
  private enqueuePrompts(): void {
    while (!this.reading && this.line.length > 0) {
      const room = this.decoding.length > 0 ? this.budget.tokens : this.scheduling.stepTokens;
      const pieces = this.line.next(room).filter((piece) => this.hasPages(piece));
      if (pieces.length === 0) continue;
      this.reading = true;
      this.decodedSince = false;
      void this.read(pieces);
    }
  }

  /** Whether the pages of a piece are there; its prompt is rejected when not. */
  private hasPages({ entry, size }: Piece): boolean {
    const { sequence } = entry.job;
    try {
      this.store.reserve(sequence, sequence.length, sequence.length + size);
      return true;
    } catch (error) {
      entry.reject(error);
      return false;
    }
  }

  /** One step of prompts; what is left of them goes back into the line. */
  private async read(pieces: readonly Piece[]): Promise<void> {
    const enqueued = performance.now();
    let outputs: Tensor[] = [];
    let failure: { readonly error: unknown } | undefined;
    try {
      outputs = this.steps.prompts(pieces);
      await outputs.at(-1)!.wait();
    } catch (error) {
      failure = { error };
    }
    const done = performance.now();
    if (failure === undefined) {
      const tokens = pieces.reduce((sum, { size }) => sum + size, 0);
      this.budget.measured(tokens, done - Math.max(enqueued, this.lastDone));
    }
    this.lastDone = done;
    this.reading = false;
    if (failure !== undefined || !pieces.some(hasOutput)) for (const tensor of outputs) tensor.dispose();
    let taken = 0;
    for (const piece of pieces) {
      if (failure !== undefined) piece.entry.reject(failure.error);
      else void this.advance(piece, hasOutput(piece) ? (outputs[taken++] as Tensor<'float32'>) : undefined);
    }
    this.turn();
  }

  /** A piece has been read; `output` is what the step made of it. */
  private async advance({ entry, size, last }: Piece, output: Tensor<'float32'> | undefined): Promise<void> {
    const { sequence, onProgress, onHidden } = entry.job;
    try {
      sequence.length += size;
      entry.at += size;
      sequence.logits = undefined;
      if (onHidden !== undefined) onHidden(await output!.read().finally(() => output!.dispose()), size);
      else if (last) {
        await this.store.checkpoint(sequence, output!).catch((error: unknown) => {
          output!.dispose();
          throw error;
        });
      }
      onProgress(entry.at);
      if (last) entry.resolve();
      else {
        this.line.push(entry);
        this.wake();
      }
    } catch (error) {
      entry.reject(error);
    }
  }

  /** One more step for every row that decodes; false when there is none. */
  private enqueueDecode(): boolean {
    const rows: Decoding[] = [];
    for (const row of this.decoding) {
      if (row.abortion !== undefined) this.end(row, row.abortion.reason);
      else if (this.hasRoom(row)) rows.push(row);
    }
    this.decoding = this.decoding.filter((row) => !row.ended);
    if (rows.length === 0) return false;
    const parts: DecodePart[] = [];
    for (let at = 0; at < rows.length; at += mostRows) {
      const some = rows.slice(at, at + mostRows);
      for (const row of some) row.enqueued++;
      const sampled = this.graphs.step(some.map((row) => row.job.sequence.slot));
      sampled.catch(() => undefined); // deliver() awaits it later
      parts.push({ rows: some, sampled });
    }
    this.decodeSteps++;
    this.decodedSince = true;
    void this.deliver(parts);
    return true;
  }

  /** Whether there is a page for the next token of a row, which is ended when not. */
  private hasRoom(row: Decoding): boolean {
    const { sequence } = row.job;
    const position = sequence.length + row.enqueued;
    if (position < row.room) return true;
    try {
      row.room = this.store.reserve(sequence, position, position + 1);
      return true;
    } catch (error) {
      this.end(row, error);
      return false;
    }
  }

  /** Gives the tokens of a step to its rows. */
  private async deliver(parts: readonly DecodePart[]): Promise<void> {
    for (const { rows, sampled } of parts) {
      try {
        const [tokens, logprobs] = await sampled;
        for (let i = 0; i < rows.length; i++) this.accept(rows[i]!, tokens[i]!, logprobs[i]!);
      } catch (error) {
        for (const row of rows) this.end(row, error);
      }
    }
    this.lastDone = performance.now();
    this.decoding = this.decoding.filter((row) => !row.ended);
    this.decodeSteps--;
    this.turn();
  }

  private accept(row: Decoding, token: number, logprob: number): void {
    if (row.ended) return;
    row.read++;
    try {
      if (!row.job.accept(token, logprob)) this.end(row);
    } catch (error) {
      this.end(row, error);
    }
  }

  /**
   * Ends a row. The steps that were read are committed, a step in flight behind them is not: its begin has committed the
   * one before, and its own effects are dropped here, after it, in the order of the queue.
   */
  private end(row: Decoding, error?: unknown): void {
    if (row.ended) return;
    row.ended = true;
    const { sequence, signal } = row.job;
    signal?.removeEventListener('abort', row.onAbort);
    try {
      if (row.enqueued > row.read) {
        this.store.setRow(sequence, 'uncommitted', 0);
      } else if (row.read > 0) {
        this.steps.commit(sequence);
      }
    } catch (failure) {
      row.reject(error ?? failure);
      return;
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
