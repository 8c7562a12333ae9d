// A user's store, asked so that its failures and silences are misses: after one the store is left alone for a while.
import type { PrefixStore } from './prefix-store';

/** How long a store may take for what shows that it is alive, and for a state of any size. */
export const shortMs = 5000;
export const stateMs = 60_000;
/** How long a store is left alone after it failed. */
const restMs = 10_000;

export interface StoreCounts {
  readonly storeReadBytes: number;
  readonly storeWrittenBytes: number;
  /** Calls that failed or got no answer in time. */
  readonly storeErrors: number;
}

export class AskedStore {
  readonly counts = { storeReadBytes: 0, storeWrittenBytes: 0, storeErrors: 0 };
  private restsUntil = 0;
  /** Of the calls that wait for an answer. */
  private readonly timers = new Set<NodeJS.Timeout>();
  private isUnref = false;

  constructor(
    protected readonly store: PrefixStore,
    private readonly onError: (error: unknown) => void,
  ) {}

  /** It failed not long ago. */
  get rests(): boolean {
    return performance.now() < this.restsUntil;
  }

  /** As of a timer: what waits for an answer, now and from now on, keeps the process no longer. */
  protected unref(): void {
    this.isUnref = true;
    for (const timer of this.timers) timer.unref();
  }

  /** undefined when the store failed, is late, or rests. Rejects with signal.reason only. */
  protected async guarded<T>(answerMs: number, call: () => Promise<T>, signal?: AbortSignal): Promise<T | undefined> {
    signal?.throwIfAborted();
    return this.rests ? undefined : this.asked(answerMs, call, signal);
  }

  protected async asked<T>(answerMs: number, call: () => Promise<T>, signal?: AbortSignal): Promise<T | undefined> {
    let stop = () => {};
    const stopped = new Promise<never>((_, reject) => {
      const timer = setTimeout(() => reject(new Error(`the store gave no answer in ${answerMs} ms`)), answerMs);
      if (this.isUnref) timer.unref();
      this.timers.add(timer);
      const abort = () => reject(signal!.reason);
      signal?.addEventListener('abort', abort);
      stop = () => {
        clearTimeout(timer);
        this.timers.delete(timer);
        signal?.removeEventListener('abort', abort);
      };
    });
    try {
      return await Promise.race([(async () => call())(), stopped]);
    } catch (error) {
      signal?.throwIfAborted();
      this.restsUntil = performance.now() + restMs;
      this.counts.storeErrors++;
      queueMicrotask(() => this.onError(error)); // what it throws is its own affair
      return undefined;
    } finally {
      stop();
    }
  }
}
