// What a model's sessions share.
import { linattnError } from '../errors';
import type { Sampling } from '../ops/sampling-table';
import type { SequenceState } from '../state/sequence-store';
import type { TextTokenizer } from '../tokenizer/tokenizer';
import { Admission } from './admission';
import type { Scheduler } from './scheduler';

export interface GenerationDefaults {
  readonly sampling: Sampling;
  /** Tokens that end a text. */
  readonly stopIds: readonly number[];
}

/** What a saved state must agree with. */
export interface ModelIdentity {
  readonly family: string;
  /** Of the weights. */
  readonly dtype: string;
  readonly fingerprint: string;
}

export class ModelCore {
  private readonly snapshots = new Set<{ dispose(): void }>();
  private readonly working = new Set<Promise<unknown>>();
  private readonly ended = new AbortController();
  readonly admission: Admission;

  constructor(
    readonly folder: string,
    readonly identity: ModelIdentity,
    readonly scheduler: Scheduler,
    readonly vocabularySize: number,
    private readonly maxSnapshots: number,
    /** Absent when the folder has no tokenizer.json: token ids work, text does not. */
    readonly tokenizer: TextTokenizer | undefined,
    readonly generationDefaults: GenerationDefaults,
  ) {
    this.admission = new Admission(scheduler.store, scheduler.scheduling.maxQueued);
  }

  /** The tokenizer, or ERR_TOKENIZER. */
  needTokenizer(call: string): TextTokenizer {
    if (this.tokenizer !== undefined) return this.tokenizer;
    throw linattnError('ERR_TOKENIZER', `${call}: ${this.folder} has no tokenizer.json, so only token ids can be read`);
  }

  /** ERR_OUT_OF_MEMORY when maxSnapshots are held. */
  addSnapshot(snapshot: { dispose(): void }): void {
    if (this.snapshots.size >= this.maxSnapshots) {
      throw linattnError(
        'ERR_OUT_OF_MEMORY',
        `snapshot: ${this.snapshots.size} snapshots are held, the most that maxSnapshots allows; dispose one`,
      );
    }
    this.snapshots.add(snapshot);
  }

  removeSnapshot(snapshot: { dispose(): void }): void {
    this.snapshots.delete(snapshot);
  }

  /** Work that no session does; the model's dispose aborts it and waits for it. */
  async during<T>(signal: AbortSignal | undefined, work: (either: AbortSignal) => Promise<T>): Promise<T> {
    const running = work(AbortSignal.any([this.ended.signal, ...(signal ? [signal] : [])]));
    this.working.add(running);
    try {
      return await running;
    } finally {
      this.working.delete(running);
    }
  }

  /** Aborts that work. */
  stop(): void {
    this.ended.abort(linattnError('ERR_DISPOSED', 'the model was disposed'));
  }

  /** After stop(): waits for that work and disposes the snapshots. */
  async end(): Promise<void> {
    await Promise.allSettled(this.working);
    for (const snapshot of this.snapshots) snapshot.dispose();
  }

  /** Bytes that a sequence holds beside its checkpoints. */
  bytesOf(sequence: SequenceState): { stateBytes: number; kvBytes: number } {
    return this.scheduler.store.bytesOf(sequence);
  }
}
