// Memory that a store is given to answer into: whose it is when an answer is late, is not wanted any more, or is not there.
import { GuardedStore } from '../../lib/cache/guarded-store';
import { MemoryStore } from '../../lib/cache/memory-store';
import type { PrefixStore } from '../../lib/cache/prefix-store';
import { reservedBlocks } from '../../lib/state/block-memory';
import type { ByteSource } from '../../lib/state/byte-source';
import { bytes, signal, taking } from '../support/guarded-store';

const tokens = Int32Array.from({ length: 50 }, (_, i) => (i * 7) % 11);
const turn = () => new Promise((resolve) => setImmediate(resolve));
const reserving = (store: PrefixStore) =>
  new GuardedStore(
    store,
    {},
    () => {},
    () => () => {},
  );

/** The buffers that are free: those of the next reserved blocks. */
function free({ memory }: GuardedStore): Set<ArrayBufferLike> {
  const blocks = Array.from({ length: reservedBlocks }, () => memory.whole()!);
  for (const block of blocks) memory.give(block);
  return new Set(blocks.map(({ buffer }) => buffer));
}

/** A store whose answers wait until they are let go, each written into the memory it was given only then. */
class Waiting extends MemoryStore {
  readonly given: Uint8Array[] = [];
  readonly letGo: (() => void)[] = [];

  override async get(key: string, memory?: Uint8Array): Promise<Uint8Array | undefined> {
    if (memory !== undefined) this.given.push(memory);
    await new Promise<void>((resolve) => this.letGo.push(resolve));
    const value = await super.get(key);
    if (value === undefined || memory === undefined) return value;
    memory.set(value);
    return memory.subarray(0, value.length);
  }
}

async function written(store: MemoryStore): Promise<string> {
  const guarded = new GuardedStore(store, {}, () => {});
  const key = guarded.keyOf(tokens);
  const plain = new MemoryStore();
  await new GuardedStore(plain, {}, () => {}).set(
    key,
    [1, 2, 3, 4].map((fill) => bytes(2 ** 17, fill)),
  );
  for (const name of await plain.keys()) await store.set(name, (await plain.get(name))!);
  return key;
}

test('an abort gives back no memory that the store may still write to, and all of it once the store is done', async () => {
  const store = new Waiting();
  await written(store);
  const guarded = reserving(store);
  const before = free(guarded);
  const [candidate] = await guarded.candidates(tokens, 0, signal);
  const abort = new AbortController();
  const reading = guarded.read(candidate!, taking(1), abort.signal);
  await turn();
  abort.abort(new Error('enough'));
  await expect(reading).rejects.toThrow('enough');
  await turn();
  expect(store.given).toHaveLength(4);
  const meanwhile = free(guarded);
  for (const { buffer } of store.given) expect(meanwhile.has(buffer)).toBe(false);
  for (const go of store.letGo) go();
  await turn();
  await turn();
  expect(free(guarded)).toEqual(before);
});

test('a store that is silent keeps what it was given until it answers, the memory of the first value too', async () => {
  jest.useFakeTimers({ doNotFake: ['setImmediate'] });
  try {
    const store = new Waiting();
    const key = await written(store);
    const guarded = reserving(store);
    const before = free(guarded);
    const reading = guarded.read({ key }, taking(1), signal);
    await turn();
    jest.advanceTimersByTime(61_000);
    expect(await reading).toBeUndefined(); // a miss
    await turn();
    expect(free(guarded).has(store.given[0]!.buffer)).toBe(false);
    for (const go of store.letGo) go();
    await turn();
    await turn();
    expect(free(guarded)).toEqual(before);
  } finally {
    jest.useRealTimers();
  }
});

test('while a store rests, nothing is lost of the memory it is not asked with', async () => {
  const store = new MemoryStore();
  const key = await written(store);
  store.get = async () => {
    throw new Error('down');
  };
  const guarded = reserving(store);
  const before = free(guarded);
  const [candidate] = await guarded.candidates(tokens, 0, signal);
  for (let i = 0; i < 3; i++) expect(await guarded.read(candidate ?? { key }, taking(1), signal)).toBeUndefined();
  await turn();
  expect(free(guarded)).toEqual(before);
});

test('an answer is copied before the next one comes into the same bytes, the first value coming last', async () => {
  const kept = new MemoryStore();
  const key = await written(kept);
  const shared = new Uint8Array(2 ** 17);
  let line: Promise<unknown> = Promise.resolve();
  const store: PrefixStore = {
    get: (name) => {
      const answer = async () => {
        await turn();
        const value = await kept.get(name);
        if (value === undefined) return undefined;
        shared.set(value);
        return shared.subarray(0, value.length);
      };
      if (name === key) return new Promise((resolve) => setTimeout(() => resolve(line.then(answer)), 20));
      const answered = line.then(answer);
      line = answered;
      return answered;
    },
    set: (name, value) => kept.set(name, value),
    delete: (name) => kept.delete(name),
    keys: () => kept.keys(),
  };
  const guarded = reserving(store);
  const [candidate] = await guarded.candidates(tokens, 0, signal);
  const all = async (state: ByteSource) => {
    const fills: number[][] = [];
    for (let i = 0; i < 4; i++) fills.push([...new Set(await state.take(2 ** 17))]);
    return fills;
  };
  expect(await guarded.read(candidate!, all, signal)).toEqual([[1], [2], [3], [4]]);
});

test('a state written between an answer that it is not there and what follows is not deleted', async () => {
  const store = new MemoryStore();
  const guarded = reserving(store);
  const get = store.get.bind(store);
  store.get = async (name) => {
    const value = await get(name);
    await store.set('a', bytes(40, 1));
    return value;
  };
  expect(await guarded.read({ key: 'a' }, taking(1), signal)).toBeUndefined();
  expect([...(await store.keys())]).toEqual(['a']);
});
