// Makes a session's state stand for a text: from the longest state that begins it, its own or one of the prefix cache's,
// it reads the rest, and leaves states in the cache on the way.
import { type Mark, marksOf } from '../cache/marks';
import type { SequenceState } from '../state/sequence-store';
import type { PrefillOptions } from './input';
import type { ModelCore } from './model-core';
import type { TokenList } from './token-list';

export interface ReadJob {
  readonly sequence: SequenceState;
  /** The tokens that the sequence stands for. */
  readonly history: TokenList;
  readonly target: Int32Array;
  /** Higher goes first. */
  readonly priority: number;
  readonly signal: AbortSignal;
  readonly onProgress: PrefillOptions['onPrefillProgress'];
  /** Where parts of the target beyond `from` end that other texts may share; undefined: no state goes to the cache. */
  readonly ends: ((from: number) => Promise<readonly number[]>) | undefined;
  /** Called when the sequence stands for other tokens than before. */
  readonly onMoved: () => void;
}

/** Returns how many tokens were not read. */
export async function readTokens(core: ModelCore, job: ReadJob): Promise<number> {
  const { sequence, history, target } = job;
  const { store } = core.scheduler;
  store.checkLength(target.length);
  const common = history.commonPrefix(target);
  const stays = common === history.length && (common < target.length || sequence.logits !== undefined);
  if (!stays) {
    const usable = sequence.checkpoints.filter((checkpoint) => checkpoint.length <= common);
    store.rewind(sequence, usable.at(-1));
    history.truncate(sequence.length);
    job.onMoved();
  }
  return new Reading(core, job).run();
}

class Reading {
  private cached: number;
  /** The newest checkpoint of the sequence is of the cache, in the middle of the prompt. */
  private isBetween = false;

  constructor(
    private readonly core: ModelCore,
    private readonly job: ReadJob,
  ) {
    this.cached = job.history.length;
  }

  async run(): Promise<number> {
    const { history, target } = this.job;
    const known = history.length;
    await this.leap();
    this.report();
    for (const mark of await this.marks()) await this.readTo(mark);
    this.cache?.counts.count(this.cached - known, history.length - this.cached);
    if (history.length === target.length) this.job.onMoved();
    return this.cached;
  }

  /** Absent where the start of the text is known by its hash only. */
  private get cache(): ModelCore['prefixCache'] {
    return this.job.history.unknownStart > 0 ? undefined : this.core.prefixCache;
  }

  private async marks(): Promise<Mark[]> {
    const { cache } = this;
    const { history, target, ends } = this.job;
    if (history.length === target.length) return [];
    if (cache === undefined || ends === undefined) return [{ at: target.length, isLasting: true }];
    const { everyTokens: every } = cache.settings;
    const from = history.length;
    const shared = cache.sharedLength(target);
    const { device } = this.core.scheduler.store;
    return marksOf({ from, length: target.length, every, ends: [shared, ...(await ends(from))], device });
  }

  /** To the longest state in the cache, when it is longer than the sequence's own. */
  private async leap(): Promise<void> {
    const { sequence, history, target, signal, onMoved } = this.job;
    const { store } = this.core.scheduler;
    const found = await this.cache?.find(target, history.length, signal);
    if (found === undefined) return;
    this.leaveBetween();
    store.adopt(sequence, found);
    store.release(found);
    this.isBetween = true;
    this.cached += found.length - history.length;
    history.push(target.subarray(history.length, found.length));
    onMoved();
  }

  /** Reads up to `mark`, or waits for sessions that do so already, as long as that gets it on. */
  private async readTo(mark: Mark): Promise<void> {
    const { history, target, ends, signal } = this.job;
    const readers = ends === undefined ? undefined : this.cache?.readers;
    for (let from = -1; from < history.length && history.length < mark.at; ) {
      const ended = readers?.ended(target, history.length);
      if (ended === undefined) break;
      from = history.length;
      await orAborted(ended, signal);
      await this.leap();
    }
    if (history.length >= mark.at) return;
    const end = readers?.begin(target.subarray(0, mark.at));
    try {
      await this.read(mark);
    } finally {
      end?.();
    }
  }

  private async read({ at, isLasting }: Mark): Promise<void> {
    const { sequence, history, target, priority, signal, ends, onMoved } = this.job;
    const start = history.length;
    const tokens = target.subarray(0, at);
    this.leaveBetween();
    const onProgress = (done: number) => {
      onMoved();
      history.push(tokens.subarray(history.length, start + done));
      this.report();
    };
    const job = { sequence, tokens: tokens.subarray(start), priority, signal, onProgress };
    try {
      await this.core.scheduler.prefill(job);
    } catch (error) {
      // What the device has committed counts, also where its checkpoint failed.
      if (sequence.length > history.length) onMoved();
      history.push(tokens.subarray(history.length, sequence.length));
      throw error;
    }
    if (ends === undefined) return;
    this.isBetween = at < target.length;
    this.cache?.offer(tokens, sequence.checkpoints.at(-1)!, isLasting);
  }

  /** A session keeps checkpoints at the ends of its prompts; those between are the cache's. */
  private leaveBetween(): void {
    if (this.isBetween) this.core.scheduler.store.dropNewest(this.job.sequence);
    this.isBetween = false;
  }

  private report(): void {
    const { history, target, onProgress } = this.job;
    onProgress?.({ done: history.length, total: target.length, cached: this.cached });
  }
}

/** Rejects with signal.reason when that comes first. */
async function orAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
  });
  signal.addEventListener('abort', abort);
  await Promise.race([work, aborted]).finally(() => signal.removeEventListener('abort', abort));
}
