// Where a prefix cache keeps states that outlive the memory of a model, or its process.
import { isUint8Array } from 'node:util/types';
import { linattnError, shown } from '../errors';

/**
 * Values are saved states with checksums of their own: a store may lose or spoil one, and it is then read as a miss. Calls
 * may come at the same time, from several processes too. A call that rejects is a miss, never a failed generation.
 */
export interface PrefixStore {
  /** What all values together may take, where there is such a limit: a state that is larger is not written. */
  readonly maxBytes?: number;
  /**
   * The answer is copied at once. `memory`: free to be used for a value that fits into it, in place of new memory; the
   * answer is then a part of it, is not copied, and `memory` is left alone from then on. It is the store's until the call
   * settles, and not to be transferred.
   */
  get(key: string, memory?: Uint8Array): Promise<Uint8Array | undefined>;
  /** Keys are at most 120 characters of [a-z0-9-]. The value may be kept, but not changed or transferred. */
  set(key: string, value: Uint8Array): Promise<void>;
  delete(key: string): Promise<void>;
  /** All keys, in any order. */
  keys(): Promise<Iterable<string>>;
}

/** @throws LinattnError ERR_ARGUMENT unless it is a number of 0 or more */
export function checkedBudget(store: string, maxBytes: number): number {
  if (typeof maxBytes === 'number' && maxBytes >= 0) return maxBytes;
  throw linattnError('ERR_ARGUMENT', `${store}: maxBytes must be a number of 0 or more, got ${shown(maxBytes)}`);
}

/** @throws LinattnError ERR_ARGUMENT unless it is bytes */
export function checkBytes(store: string, name: 'value' | 'memory', bytes: Uint8Array): void {
  if (isUint8Array(bytes)) return;
  throw linattnError('ERR_ARGUMENT', `${store}: ${name} must be a Uint8Array, got ${shown(bytes)}`);
}

/** What a store with a byte budget gives up first: the values that were used least recently. */
export interface Kept {
  readonly key: string;
  readonly bytes: number;
  /** Any clock. */
  readonly usedAt: number;
}

/** The keys to give up so that the rest is within `maxBytes`. */
export function overBudget(kept: readonly Kept[], maxBytes: number): string[] {
  let total = kept.reduce((bytes, one) => bytes + one.bytes, 0);
  const keys: string[] = [];
  for (const one of [...kept].sort((a, b) => a.usedAt - b.usedAt)) {
    if (total <= maxBytes) break;
    keys.push(one.key);
    total -= one.bytes;
  }
  return keys;
}
