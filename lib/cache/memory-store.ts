// A prefix store in the memory of the process, for several models or loads of one.
import { checkOptions } from '../errors';
import { checkBytes, checkedBudget, overBudget, type PrefixStore } from './prefix-store';

export class MemoryStore implements PrefixStore {
  private readonly values = new Map<string, Uint8Array>();
  readonly maxBytes: number;

  /** maxBytes: default 1 GiB; what was used least recently goes first. ERR_ARGUMENT */
  constructor(options: { maxBytes?: number } = {}) {
    checkOptions('MemoryStore', options);
    const { maxBytes = 2 ** 30 } = options;
    this.maxBytes = checkedBudget('MemoryStore', maxBytes);
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    const value = this.values.get(key);
    if (value !== undefined) this.put(key, value);
    return value;
  }

  async set(key: string, value: Uint8Array): Promise<void> {
    checkBytes('MemoryStore', 'value', value);
    this.put(key, value);
    const kept = [...this.values].map(([name, { byteLength }], i) => ({ key: name, bytes: byteLength, usedAt: i }));
    for (const old of overBudget(kept, this.maxBytes)) this.values.delete(old);
  }

  /** At the end of the map: the order of a map is the order of use. */
  private put(key: string, value: Uint8Array): void {
    this.values.delete(key);
    this.values.set(key, value);
  }

  async delete(key: string): Promise<void> {
    this.values.delete(key);
  }

  async keys(): Promise<Iterable<string>> {
    return [...this.values.keys()];
  }
}
