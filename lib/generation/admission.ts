// Requests that wait for a sequence of their own, and for the key-value pages that they may come to need: who is let in can
// write to the end, unless sessions and snapshots of the caller take the pages.
import { linattnError } from '../errors';
import { pageTokens } from '../layers/layer';
import type { PagePool } from '../state/page-pool';
import type { SequenceState, SequenceStore } from '../state/sequence-store';
import { stepsALevel } from './prefill-line';

export interface Need {
  /** Tokens of the prompt, and the most that follow. */
  readonly promptTokens: number;
  readonly maxTokens: number;
  /** Higher goes first; among equals who came first. */
  readonly priority: number;
}

/** Who was let in. */
interface Admitted {
  readonly sequence: SequenceState;
  readonly pages: readonly number[];
}

interface Waiting {
  readonly need: Need;
  /** Others that came later and were let in first. */
  passedOver: number;
  /** Lets it in. */
  readonly enter: () => void;
}

/** A place in the line, taken at the call; left once, on the way in or out. */
export interface Place {
  leave(): void;
}

export class Admission {
  private readonly waiting: Waiting[] = [];
  private readonly admitted = new Set<Admitted>();
  /** Places taken and not left. */
  private places = 0;
  private woken = false;

  constructor(
    private readonly store: SequenceStore,
    private readonly maxQueued: number,
  ) {
    store.onFreed = () => this.wake();
  }

  /** Takes a place for a request. ERR_QUEUE_FULL when as many wait as may. */
  takePlace(): Place {
    if (this.places >= this.maxQueued + this.store.vacancies) {
      throw linattnError(
        'ERR_QUEUE_FULL',
        `generate: ${this.places} requests wait for a sequence, the most that scheduling.maxQueued allows`,
      );
    }
    this.places++;
    let left = false;
    return {
      leave: () => {
        if (!left) this.places--;
        left = true;
      },
    };
  }

  /**
   * Resolves with what `open` makes once there is room for it; leaves the place then.
   * @param open called when it is let in
   * @throws LinattnError ERR_ARGUMENT or ERR_OUT_OF_MEMORY at once when the prompt can never fit; signal.reason
   */
  admit<T extends { readonly sequence: SequenceState }>(
    place: Place,
    need: Need,
    signal: AbortSignal,
    open: () => T,
  ): Promise<{ readonly opened: T; readonly release: () => void }> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      this.store.checkLength(need.promptTokens);
      const leave = () => {
        signal.removeEventListener('abort', abort);
        this.waiting.splice(this.waiting.indexOf(entry), 1);
        place.leave();
      };
      const abort = () => {
        leave();
        reject(signal.reason as Error);
        this.wake();
      };
      const entry: Waiting = {
        need,
        passedOver: 0,
        enter: () => {
          leave();
          try {
            const opened = open();
            const admitted = { sequence: opened.sequence, pages: this.pagesOf(lengthOf(need)) };
            this.admitted.add(admitted);
            resolve({ opened, release: () => void (this.admitted.delete(admitted) && this.wake()) });
          } catch (error) {
            reject(error);
          }
        },
      };
      signal.addEventListener('abort', abort, { once: true });
      this.waiting.push(entry);
      this.wake();
    });
  }

  /** Lets in who can be let in, after this tick. */
  private wake(): void {
    if (this.woken || this.waiting.length === 0) return;
    this.woken = true;
    queueMicrotask(() => {
      this.woken = false;
      this.letIn();
    });
  }

  /** The line stops at the first that does not fit, so that small requests never starve a large one. */
  private letIn(): void {
    const level = ({ need, passedOver }: Waiting) => need.priority + Math.floor(passedOver / stepsALevel);
    while (this.waiting.length > 0) {
      const first = this.waiting.reduce((best, entry) => (level(entry) > level(best) ? entry : best));
      if (!this.fits(first.need)) return;
      for (const earlier of this.waiting.slice(0, this.waiting.indexOf(first))) earlier.passedOver++;
      first.enter();
    }
  }

  private fits(need: Need): boolean {
    if (this.store.vacancies === 0) return false;
    const all = this.pagesOf(lengthOf(need));
    if (this.pools.every((pool, i) => all[i]! <= pool.freePages - this.promised(i))) return true;
    // Nobody will give back what is missing: it starts with what is there.
    const prompt = this.pagesOf(need.promptTokens);
    return this.admitted.size === 0 && this.pools.every((pool, i) => prompt[i]! <= pool.freePages);
  }

  private get pools(): readonly PagePool[] {
    return this.store.pagePools;
  }

  /** Pages of each group that `length` tokens take. */
  private pagesOf(length: number): number[] {
    return this.pools.map((pool) => pool.growingPages(length));
  }

  /** Pages of a group that those who were let in may still take. */
  private promised(group: number): number {
    let pages = 0;
    for (const { sequence, pages: all } of this.admitted) {
      pages += this.pools[group]!.missing(sequence.pages[group]!, all[group]!);
    }
    return pages;
  }
}

const lengthOf = ({ promptTokens, maxTokens }: Need): number => promptTokens + maxTokens + pageTokens; // a page is copied
