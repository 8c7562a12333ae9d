// The prefix cache and its store: states come back in other loads of the model, and a store's faults are misses.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DirectoryStore } from '../../lib/cache/directory-store';
import { MemoryStore } from '../../lib/cache/memory-store';
import { load } from '../../lib/generation/load';
import { seeded } from '../support/arrays';
import { join, reading, room, whenKept } from '../support/cached-reading';
import { expectSameLogits } from '../support/device';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

const random = seeded(18);
const randomTokens = (length: number) => Int32Array.from({ length }, () => random.int(200));
const small = { model: readGolden('qwen3_5/grouped').folder, maxSequences: 2 };
const text = randomTokens(300);

async function savedTo(store: MemoryStore, tokens = text): Promise<void> {
  const model = await load({ ...small, prefixCache: { store } });
  await reading(model, tokens);
  await model.dispose(); // waits for the store
}

const gone = (bytes: Uint8Array): Uint8Array => {
  const copy = bytes.slice();
  structuredClone(copy.buffer, { transfer: [copy.buffer] });
  return copy;
};

test('a value whose memory has gone to another thread is a miss', async () => {
  class Transferring extends MemoryStore {
    override async get(key: string): Promise<Uint8Array | undefined> {
      const value = await super.get(key);
      return value && gone(value);
    }
  }
  const store = new Transferring();
  await savedTo(store);
  const model = await load({ ...small, prefixCache: { store } });
  expect((await reading(model, text)).cached).toBe(0);
  await model.dispose();
});

test.each<[string, (bytes: Uint8Array) => void]>([
  ['use its memory again', (bytes) => bytes.fill(0)],
  [
    'send its memory to another thread',
    (bytes) => structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] }),
  ],
])('a store may %s once it has answered', async (_, spoil) => {
  class Reusing extends MemoryStore {
    override async get(key: string): Promise<Uint8Array | undefined> {
      const value = (await super.get(key))?.slice();
      if (value !== undefined) setImmediate(() => spoil(value));
      return value;
    }
  }
  const store = new Reusing();
  await savedTo(store);
  const plain = await load(small);
  const { logits } = await reading(plain, text);
  await plain.dispose();
  const model = await load({ ...small, prefixCache: { store } });
  expect(await reading(model, text)).toEqual({ cached: 300, logits });
  await model.dispose();
});

/** Answers with what is no bytes where it was told to, until a value is written there. */
class Lying extends MemoryStore {
  readonly lies = new Map<string, unknown>();
  override async get(key: string): Promise<Uint8Array | undefined> {
    return this.lies.has(key) ? (this.lies.get(key) as Uint8Array) : super.get(key);
  }
  override async set(key: string, value: Uint8Array): Promise<void> {
    this.lies.delete(key);
    await super.set(key, value);
  }
}

test('another load of the model goes on from it; a spoilt or foreign state is dropped', async () => {
  const store = new Lying();
  await savedTo(store);
  const [key] = [...(await store.keys())];
  const good = (await store.get(key!))!;
  const plain = await load(small);
  const { logits } = await reading(plain, text);
  const flipped = good.slice();
  flipped[good.length / 2]! ^= 4;
  const foreign = await load({ model: readGolden('qwen3_5/tied').folder, maxSequences: 1 });
  const session = foreign.createSession();
  await session.prefill({ tokens: text });
  const snapshot = await session.snapshot();
  const other = plain.createSession();
  await other.prefill({ tokens: randomTokens(300) });
  const values = [
    ...[good, flipped, good.subarray(0, 1000), new Uint8Array(0), 'text', await snapshot.serialize()],
    ...[await (await other.snapshot()).serialize(), await (await other.snapshot()).serialize({ tokens: 'hash' })],
  ];
  for (const [i, value] of values.entries()) {
    const errors: unknown[] = [];
    if (typeof value === 'string') store.lies.set(key!, value);
    else await store.set(key!, value);
    const model = await load({ ...small, prefixCache: { store, onStoreError: (error) => errors.push(error) } });
    const result = await reading(model, text);
    expect(result.cached).toBe(i === 0 ? 300 : 0);
    expectSameLogits(result.logits, logits);
    await model.dispose();
    expect(errors).toEqual([]);
    expect(Buffer.compare((await store.get(key!))!, good)).toBe(0); // written anew
  }
  for (const model of [plain, foreign]) await model.dispose();
});

test('a model that is disposed while a state comes from the store ends, and so does who waits for it', async () => {
  const store = new MemoryStore();
  await savedTo(store);
  for (const ticks of [0, 1, 2, 5, 20]) {
    let disposed: Promise<void> | undefined;
    class Leaving extends MemoryStore {
      override keys = () => store.keys();
      override async get(key: string, memory?: Uint8Array): Promise<Uint8Array | undefined> {
        const value = (await store.get(key))!;
        memory!.set(value);
        const wait = async () => {
          for (let i = 0; i < ticks; i++) await new Promise((resolve) => setImmediate(resolve));
        };
        disposed ??= wait().then(() => model.dispose());
        return memory!.subarray(0, value.length);
      }
    }
    const model = await load({ ...small, prefixCache: { store: new Leaving() } });
    const [read] = await Promise.allSettled([model.createSession().prefill({ tokens: text })]);
    await disposed;
    if (read.status === 'rejected') expect(read.reason).toMatchObject({ code: 'ERR_DISPOSED' });
  }
  const model = await load({ ...small, prefixCache: { store } });
  expect((await reading(model, text)).cached).toBeGreaterThan(200);
  await model.dispose();
});

test('of prompts that come together the store is asked for as many states as have places on the device', async () => {
  const got = new Set<string>();
  class Asked extends MemoryStore {
    override async get(key: string): Promise<Uint8Array | undefined> {
      got.add(key);
      await new Promise((resolve) => setTimeout(resolve, 20));
      return super.get(key);
    }
  }
  const store = new Asked();
  const texts = Array.from({ length: 4 }, () => randomTokens(300));
  for (const one of texts) await savedTo(store, one);
  const model = await load({ ...small, prefixCache: { store } });
  const { prefixCache, scheduler } = insideOf(model).core;
  (prefixCache!.settings as { states: number }).states = 2;
  got.clear();
  const { signal } = new AbortController();
  const found = await Promise.all(texts.map((one) => prefixCache!.find(one, 0, signal)));
  expect([found.filter(Boolean).length, got.size]).toEqual([2, 2]);
  const later = await prefixCache!.find(texts[3]!, 0, signal);
  expect([later?.length, got.size]).toEqual([300, 3]);
  for (const one of [...found, later]) if (one) scheduler.store.release(one);
  await model.dispose();
});

test('a state that is larger than the store is not written, and what is there stays', async () => {
  const store = new MemoryStore({ maxBytes: 1000 });
  await store.set('another', new Uint8Array(900));
  await savedTo(store);
  expect([...(await store.keys())]).toEqual(['another']);
});

test('another model has other keys', async () => {
  const store = new MemoryStore();
  await savedTo(store);
  const other = await load({ ...small, dtype: 'int8', prefixCache: { store } });
  expect((await reading(other, text)).cached).toBe(0);
  await other.dispose();
  expect([...(await store.keys())]).toHaveLength(2);
});

test('what leaves the device and the memory of the process goes to it', async () => {
  const store = new MemoryStore();
  await savedTo(store);
  const [key] = [...(await store.keys())];
  const hostBytes = Math.ceil((await store.get(key!))!.length * 1.5); // one state and no second one
  const deviceBytes = await room(small, 2);
  const model = await load({ ...small, prefixCache: { everyTokens: 64, deviceBytes, hostBytes, store } });
  for (let length = 100; length <= 300; length += 100) {
    await reading(model, join(text.subarray(0, length), randomTokens(40)));
    await whenKept(model); // one state leaves at a time
  }
  const lengths = [...(await store.keys())].map((name) => Number(name.split('-')[1]));
  expect(lengths).toEqual(expect.arrayContaining([140, 240, 300, 340])); // ends of prompts
  expect(lengths.length).toBeGreaterThan(4);
  await model.dispose();
});

test.each(['rejects', 'throws'])('one that %s fails no call', async (kind) => {
  const lost = new Error('connection lost');
  const fail = (): Promise<never> => {
    if (kind === 'throws') throw lost;
    return Promise.reject(lost);
  };
  const errors: unknown[] = [];
  const onStoreError = (error: unknown) => errors.push(error);
  const store = { get: fail, set: fail, delete: fail, keys: fail };
  const model = await load({ ...small, prefixCache: { store, onStoreError } });
  for (const cached of [0, 300]) expect((await reading(model, text)).cached).toBe(cached);
  await model.dispose();
  expect(errors).toEqual([lost]);
});

test('one that is silent is left when the signal comes', async () => {
  const silent = () => new Promise<never>(() => undefined);
  const store = { get: silent, set: silent, delete: silent, keys: silent };
  const model = await load({ ...small, prefixCache: { store } });
  const reason = new Error('enough');
  const session = model.createSession();
  const ended = new AbortController();
  setTimeout(() => ended.abort(reason), 20);
  await expect(session.prefill({ tokens: text }, { signal: ended.signal })).rejects.toBe(reason);
  await model.dispose();
});

test('a folder keeps states for the next load; a file that was cut or changed is read as a miss and written anew', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-states-'));
  const next = async () => {
    const model = await load({ ...small, prefixCache: { store: new DirectoryStore(folder) } });
    const result = await reading(model, text);
    await model.dispose();
    return result;
  };
  const first = await next();
  expect(await next()).toEqual({ cached: 300, logits: first.logits });
  const [name] = readdirSync(folder);
  const file = path.join(folder, name!);
  const good = readFileSync(file);
  const flipped = Buffer.from(good);
  flipped[good.length - 40]! ^= 1;
  for (const content of [good.subarray(0, good.length - 1), flipped, Buffer.alloc(0)]) {
    writeFileSync(file, content);
    expect(await next()).toEqual({ cached: 0, logits: first.logits });
    expect(Buffer.compare(readFileSync(file), good)).toBe(0);
  }
  expect(readdirSync(folder)).toEqual([name]);
  rmSync(folder, { recursive: true });
});

test('a store that answers with the state of a shorter text is not believed', async () => {
  const plain = await load(small);
  const { logits } = await reading(plain, text);
  const early = plain.createSession();
  await early.prefill({ tokens: text.subarray(0, 20) });
  const bytes = await (await early.snapshot()).serialize();
  await plain.dispose();
  const store = new MemoryStore();
  await savedTo(store);
  const [key] = [...(await store.keys())];
  await store.set(key!, bytes);
  const model = await load({ ...small, prefixCache: { store } });
  const session = model.createSession();
  await session.prefill({ tokens: text.subarray(0, 30) });
  expect(await session.prefill({ tokens: text })).toMatchObject({ promptTokens: 300, cachedTokens: 30 });
  expectSameLogits(await session.logits(), logits);
  await model.dispose();
});
