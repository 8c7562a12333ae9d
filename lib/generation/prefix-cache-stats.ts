// What a prefix cache did and holds, for who watches over it.
import type { StoreCounts } from '../cache/asked-store';

/** Counted since the model was loaded. */
export class PrefixCacheCounts {
  /** Texts of which the cache gave a beginning, beyond what their sessions had. */
  hits = 0;
  /** Texts of which it gave nothing. */
  misses = 0;
  /** Tokens that were not read because the cache gave their state. */
  cachedTokens = 0;
  /** States that left the device, and the memory of the process, for others. */
  deviceEvictions = 0;
  hostEvictions = 0;

  /** Of a text: `cached` tokens came from the cache, and `read` were read. */
  count(cached: number, read: number): void {
    this.cachedTokens += cached;
    if (cached > 0) this.hits++;
    else if (read > 0) this.misses++;
  }
}

export const noStore: StoreCounts = { storeReadBytes: 0, storeWrittenBytes: 0, storeErrors: 0 };

export interface PrefixCacheStats extends Readonly<Omit<PrefixCacheCounts, 'count'>>, StoreCounts {
  /** States that are on the device, and in the memory of the process; some are in both. */
  readonly deviceStates: number;
  readonly hostStates: number;
  /** With keys and values, which count for every state that shares them. */
  readonly deviceBytes: number;
  readonly hostBytes: number;
}
