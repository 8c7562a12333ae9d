// A store behind its guard: states in several values, and whatever a store does is at worst a miss.
import { createHash } from 'node:crypto';
import { GuardedStore } from '../../lib/cache/guarded-store';
import { MemoryStore } from '../../lib/cache/memory-store';
import type { PrefixStore } from '../../lib/cache/prefix-store';
import { reservedBlocks } from '../../lib/state/block-memory';
import type { ByteSource } from '../../lib/state/byte-source';
import { formatVersion } from '../../lib/state/snapshot-format';
import { bytes, guard, signal, taking } from '../support/guarded-store';

const wrong = async (state: ByteSource): Promise<'wrong'> => {
  await state.take(1);
  return 'wrong';
};

const tokens = Int32Array.from({ length: 50 }, (_, i) => (i * 7) % 11);

test('finds the states that begin a text, of its model only', async () => {
  const store = new MemoryStore();
  const [mine, others] = [{ model: 'a' }, { model: 'b' }].map((model) => new GuardedStore(store, model, () => {}));
  for (const length of [10, 30, 20]) await mine!.set(mine!.keyOf(tokens.subarray(0, length)), [bytes(9, length)]);
  await mine!.set(mine!.keyOf(tokens.subarray(1, 26)), [bytes(9, 25)]);
  await others!.set(others!.keyOf(tokens.subarray(0, 40)), [bytes(9, 40)]);
  await store.set('not-a-state', bytes(1, 1));
  const found = async (beyond: number) => {
    const keys = await mine!.candidates(tokens, beyond, signal);
    return Promise.all(keys.map(async (one) => (await mine!.read(one, taking(1), signal))![0]![0]));
  };
  expect(await found(0)).toEqual([30, 20, 10]);
  expect(await found(20)).toEqual([30]);
  expect(await found(30)).toEqual([]);
  expect(await mine!.candidates(tokens.subarray(0, 29), 0, signal)).toHaveLength(2);
  expect(mine!.keyOf(tokens)).toMatch(/^[a-z0-9-]{1,120}$/);
});

test('a state of several values is written with its first value last, and read as one', async () => {
  const order: string[] = [];
  class Watched extends MemoryStore {
    override set(key: string, value: Uint8Array): Promise<void> {
      order.push(key);
      return super.set(key, value);
    }
  }
  const store = new Watched();
  const guarded = guard(store);
  const key = guarded.keyOf(tokens);
  const pieces = [bytes(40, 1), bytes(30, 2), bytes(20, 3)];
  expect(await guarded.set(key, pieces)).toBe(true);
  expect(order).toEqual([expect.stringMatching(/-1$/), expect.stringMatching(/-2$/), key]);
  for (const name of order) expect(name).toMatch(/^[a-z0-9-]{1,120}$/);
  const prefix = order[0]!.slice(0, -1);
  expect(await guarded.candidates(tokens, 0, signal)).toEqual([{ key, prefix, blocks: 2 }]);
  const values = await guarded.read({ key }, taking(10, 30, 30, 20), signal);
  expect(values).toEqual([bytes(10, 1), bytes(30, 1), bytes(30, 2), bytes(20, 3)]);
  expect(guarded.counts).toMatchObject({ storeReadBytes: 90, storeWrittenBytes: 90 });
  expect(await guarded.read({ key }, wrong, signal)).toBeUndefined();
  expect([...(await store.keys())]).toEqual([]);
});

test('listed blocks are asked for together with the first value, and only those of its writing are used', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  const key = guarded.keyOf(tokens);
  await guarded.set(key, [bytes(40, 1), bytes(30, 2), bytes(20, 3)]);
  const [listed] = await guarded.candidates(tokens, 0, signal);
  const asked: string[] = [];
  let answer = () => {};
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const late: PrefixStore = {
    get: async (name) => {
      asked.push(name);
      if (name === key) await answered;
      return store.get(name);
    },
    set: async () => undefined,
    delete: (name) => store.delete(name),
    keys: () => store.keys(),
  };
  const reading = guard(late).read(listed!, taking(40, 30, 20), signal);
  await new Promise((resolve) => setImmediate(resolve));
  expect(asked).toEqual([key, `${listed!.prefix}1`, `${listed!.prefix}2`]);
  await guarded.set(key, [bytes(40, 9), bytes(30, 8), bytes(20, 7)]); // another writing, while it is read
  answer();
  expect(await reading).toEqual([bytes(40, 9), bytes(30, 8), bytes(20, 7)]);
  const [both] = await guarded.candidates(tokens, 0, signal);
  await store.set(`${key}-${'0'.repeat(16)}-1`, bytes(1, 1));
  const [mixed] = await guarded.candidates(tokens, 0, signal);
  expect([both!.blocks, both!.prefix === undefined, mixed!.prefix]).toEqual([2, false, undefined]);
});

test('all memory of a reading comes back, also when the state is wrong or the blocks are of another writing', async () => {
  const store = new MemoryStore();
  const guarded = new GuardedStore(
    store,
    {},
    () => {},
    () => () => {},
  );
  const { memory } = guarded;
  const key = guarded.keyOf(tokens);
  const piece = 2 ** 20;
  await guarded.set(key, [bytes(40, 1), bytes(piece, 2), bytes(piece, 3)]);
  const [listed] = await guarded.candidates(tokens, 0, signal);
  const reserved = () => {
    const blocks = Array.from({ length: reservedBlocks }, () => memory.whole()!);
    for (const block of blocks) memory.give(block);
    return new Set(blocks.map(({ buffer }) => buffer));
  };
  const before = reserved();
  const all = async (state: ByteSource) => {
    const taken = [await state.take(40), await state.take(piece), await state.take(piece)];
    const fills = taken.map((value) => value[0]);
    for (const value of taken) state.give(value);
    return fills;
  };
  expect(await guarded.read(listed!, all, signal)).toEqual([1, 2, 3]);
  await guarded.set(key, [bytes(40, 9), bytes(piece, 8), bytes(piece, 7)]);
  await expect(guarded.read(listed!, all, signal)).resolves.toEqual([9, 8, 7]);
  expect(await guarded.read({ key }, wrong, signal)).toBeUndefined();
  await new Promise((resolve) => setImmediate(resolve));
  expect(reserved()).toEqual(before);
});

test('states in another format have other keys', () => {
  const kind = JSON.stringify({ format: formatVersion, model: 'a' });
  const mark = createHash('sha256').update(kind).digest('hex').slice(0, 16);
  const key = new GuardedStore(new MemoryStore(), { model: 'a' }, () => {}).keyOf(tokens);
  expect(key.startsWith(`${mark}-50-`)).toBe(true);
});

test('a state that lost its first value leaves none of the others', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  await guarded.set('a', [bytes(40, 1), bytes(30, 2), bytes(20, 3)]);
  await guarded.set('b', [bytes(40, 1), bytes(30, 2)]);
  await store.delete('a');
  expect(await guarded.read({ key: 'a' }, wrong, signal)).toBeUndefined();
  expect([...(await store.keys())].map((key) => key[0])).toEqual(['b', 'b']);
});

test('a state that lacks a value ends early; a store that fails between two is no end', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  await guarded.set('a', [bytes(40, 1), bytes(30, 2)]);
  await store.delete([...(await store.keys())].find((key) => key !== 'a')!);
  expect(await guarded.read({ key: 'a' }, taking(40, 30), signal)).toEqual([bytes(40, 1), bytes(0, 0)]);
  const get = async (key: string) => {
    if (key === 'a') return bytes(40, 1);
    throw new Error('lost');
  };
  const failing = new GuardedStore({ get, set: store.set, delete: store.delete, keys: store.keys }, {}, () => {});
  await expect(failing.read({ key: 'a' }, taking(40, 30), signal)).rejects.toThrow('the store failed');
});

test('a failure is told, is a miss, and gives the store a rest', async () => {
  const errors: unknown[] = [];
  const lost = new Error('lost');
  let calls = 0;
  const fail = () => {
    calls++;
    throw lost;
  };
  const store = new GuardedStore({ get: fail, set: fail, delete: fail, keys: fail }, {}, (error) => errors.push(error));
  expect(await store.read({ key: 'a' }, wrong, signal)).toBeUndefined();
  expect(await store.set('a', [bytes(1, 1)])).toBe(false);
  expect(await store.candidates(tokens, 0, signal)).toEqual([]);
  expect(errors).toEqual([lost]);
  expect(calls).toBe(1);
});

test('a store that is silent holds up nobody whose signal comes', async () => {
  const silent = () => new Promise<never>(() => undefined);
  const store = new GuardedStore({ get: silent, set: silent, delete: silent, keys: silent }, {}, () => {});
  const reason = new Error('enough');
  const ended = new AbortController();
  setTimeout(() => ended.abort(reason), 10);
  await expect(store.candidates(tokens, 0, ended.signal)).rejects.toBe(reason);
});

test('a store that is silent keeps the process no longer once it is disposed', async () => {
  const silent = () => new Promise<never>(() => undefined);
  const store = new GuardedStore({ get: silent, set: silent, delete: silent, keys: silent }, {}, () => {});
  const timers = jest.spyOn(globalThis, 'setTimeout');
  try {
    const holding = () => timers.mock.results.map(({ value }) => (value as NodeJS.Timeout).hasRef());
    void store.set('a', [bytes(1, 1)]);
    const ended = new AbortController();
    const reading = store.read({ key: 'a' }, wrong, ended.signal);
    await new Promise(setImmediate);
    expect(holding()).toEqual([true, true]);
    store.dispose();
    const listing = store.candidates(tokens, 0, ended.signal);
    expect(holding()).toEqual([false, false, false]);
    ended.abort();
    await expect(Promise.allSettled([reading, listing])).resolves.toMatchObject([{ reason: ended.signal.reason }, {}]);
  } finally {
    for (const { value } of timers.mock.results) clearTimeout(value as NodeJS.Timeout);
    timers.mockRestore();
  }
});
