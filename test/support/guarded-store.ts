// A GuardedStore of a test, what is written to it, and what reads from it.
import { GuardedStore } from '../../lib/cache/guarded-store';
import type { PrefixStore } from '../../lib/cache/prefix-store';
import type { ByteSource } from '../../lib/state/byte-source';

export const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill);
export const signal = new AbortController().signal;
export const guard = (store: PrefixStore, model: object = {}) => new GuardedStore(store, model, () => {});

/** Takes pieces of these sizes, copied. */
export const taking =
  (...sizes: number[]) =>
  async (state: ByteSource): Promise<Uint8Array[]> => {
    const values: Uint8Array[] = [];
    for (const size of sizes) values.push((await state.take(size)).slice());
    return values;
  };
