// The prefix cache: what starts at a cached state is, to the bit, what reads everything, and usage says what was read.
import { MemoryStore } from '../../lib/cache/memory-store';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { PrefixCacheOptions } from '../../lib/generation/prefix-cache-options';
import { seeded } from '../support/arrays';
import { join, processed, reading, room, whenKept } from '../support/cached-reading';
import { expectSameLogits } from '../support/device';
import { readGolden } from '../support/golden';
import { collectForgotten, used } from '../support/held';
import { insideOf } from '../support/network';

const random = seeded(17);
const randomTokens = (length: number) => Int32Array.from({ length }, () => random.int(200));

beforeAll(collectForgotten);

describe.each(['qwen3_5/grouped', 'gated_deltanet/hybrid'])('%s', (name) => {
  const options = { model: readGolden(name).folder, maxSequences: 4 };
  let plain: Model;
  beforeAll(async () => {
    plain = await load(options);
  });
  afterAll(() => plain.dispose());

  async function withCache(prefixCache: PrefixCacheOptions, work: (model: Model) => Promise<void>): Promise<void> {
    const before = await used();
    const model = await load({ ...options, prefixCache });
    await work(model).finally(() => model.dispose());
    expect(await used()).toBe(before);
  }

  test('whatever was read before, in whatever tier it lies, a text reads as if it were the first', async () => {
    const deviceBytes = await room(options, 3);
    const store = new MemoryStore();
    for (const prefixCache of [
      { everyTokens: 64 },
      { everyTokens: 100, deviceBytes, hostBytes: 2 ** 26 },
      { everyTokens: 128, deviceBytes, hostBytes: 0 },
      { everyTokens: 128, deviceBytes, hostBytes: 100_000, store },
    ]) {
      const parts = Array.from({ length: 4 }, () => randomTokens(40 + random.int(200)));
      await withCache(prefixCache, async (model) => {
        let cached = 0;
        for (let i = 0; i < 12; i++) {
          const more = Array.from({ length: random.int(4) }, () => parts[random.int(4)]!);
          const text = join(parts[random.int(2)]!, ...more, randomTokens(3));
          const end = random.int(4) === 0 ? text.length - random.int(30) : text.length;
          const result = await reading(model, text.subarray(0, end));
          expectSameLogits(result.logits, (await reading(plain, text.subarray(0, end))).logits);
          cached += result.cached;
        }
        expect(cached).toBeGreaterThan(0);
      });
    }
  });

  test('the longest state wins, and a text that parts from another leaves a state where it did', async () => {
    await withCache({ everyTokens: 128 }, async (model) => {
      const text = randomTokens(300);
      expect((await reading(model, text)).cached).toBe(0);
      expect((await reading(model, text)).cached).toBe(300);
      expect((await reading(model, join(text, randomTokens(10)))).cached).toBe(300);
      const parting = () => join(text.subarray(0, 230), randomTokens(90));
      expect((await reading(model, parting())).cached).toBe(128);
      expect((await reading(model, parting())).cached).toBe(230);
      expect((await reading(model, text.subarray(1))).cached).toBe(0);
      expect((await reading(model, text.subarray(0, 127))).cached).toBe(0);
    });
  });

  test('the model says what its cache did and holds', async () => {
    expect(plain.prefixCache).toBeUndefined();
    const deviceBytes = await room(options, 2);
    await withCache({ everyTokens: 1000, deviceBytes }, async (model) => {
      const none = { hits: 0, misses: 0, cachedTokens: 0, deviceEvictions: 0, hostEvictions: 0 };
      const store = { storeReadBytes: 0, storeWrittenBytes: 0, storeErrors: 0 };
      const empty = { deviceStates: 0, deviceBytes: 0, hostStates: 0, hostBytes: 0 };
      expect(model.prefixCache).toEqual({ ...none, ...store, ...empty });
      const text = randomTokens(100);
      await reading(model, text);
      expect(model.prefixCache).toMatchObject({ ...none, misses: 1, deviceStates: 1 });
      const [bytes, states] = [model.prefixCache!.deviceBytes, model.prefixCache!.deviceStates];
      expect(bytes).toBeGreaterThanOrEqual(states * model.info.stateBytes);
      // A session's own tokens are no hit, and nothing to read is no miss.
      const session = model.createSession();
      await session.prefill({ tokens: join(text, randomTokens(20)) });
      await session.prefill({ append: [] });
      expect(model.prefixCache).toMatchObject({ hits: 1, misses: 1, cachedTokens: 100 });
      await session.dispose();
      for (let i = 0; i < 3; i++) await reading(model, randomTokens(100));
      await whenKept(model);
      const after = model.prefixCache!;
      expect(after).toMatchObject({ hits: 1, misses: 4, hostEvictions: 0 });
      expect(after.deviceStates).toBeLessThanOrEqual(2);
      expect(after.deviceEvictions).toBeGreaterThanOrEqual(2);
      expect(after.hostStates).toBeGreaterThan(0);
      expect(after.hostBytes).toBeGreaterThan(after.hostStates * 1000);
    });
  });

  test('a generation from a cached state writes what one writes that read everything', async () => {
    const text = randomTokens(200);
    const options = { tokens: text, maxTokens: 30, temperature: 0.8, seed: 4, repetitionPenalty: 1.2, ignoreEos: true };
    const wanted = await plain.generate(options).result;
    await withCache({}, async (model) => {
      for (const cached of [0, 200]) {
        const { tokens, usage } = await model.generate(options).result;
        expect(tokens).toEqual(wanted.tokens);
        expect(usage.cachedTokens).toBe(cached);
      }
    });
  });

  test('a session prefers its own state, and takes one of the cache that goes on from there', async () => {
    await withCache({ everyTokens: 128 }, async (model) => {
      const text = randomTokens(400);
      const session = model.createSession();
      await session.prefill({ tokens: text.subarray(0, 200) });
      await reading(model, text);
      const events: { done: number; cached: number }[] = [];
      const usage = await session.prefill({ tokens: text }, { onPrefillProgress: (event) => events.push(event) });
      expect(usage.cachedTokens).toBe(400);
      expect(events).toEqual([{ done: 400, total: 400, cached: 400 }]);
      expect(await processed(session)).toBe(200);
      expect(session.tokens()).toEqual(text);
      // Back to its first prompt, which it still holds, though the cache knows more of the other text.
      expect(await session.prefill({ append: randomTokens(5) })).toMatchObject({ cachedTokens: 400 });
      expect(await session.prefill({ tokens: text.subarray(0, 200) })).toMatchObject({ cachedTokens: 200 });
      await session.dispose();
    });
  });

  test('sessions that read the same at the same time read it once', async () => {
    await withCache({ everyTokens: 128 }, async (model) => {
      const text = randomTokens(700);
      const texts = [text, join(text, randomTokens(20)), text, join(text.subarray(0, 500), randomTokens(33))];
      const sessions = texts.map(() => model.createSession());
      await Promise.all(sessions.map((session, i) => session.prefill({ tokens: texts[i]! })));
      let read = 0;
      for (const [i, session] of sessions.entries()) {
        read += await processed(session);
        expectSameLogits(await session.logits(), (await reading(plain, texts[i]!)).logits);
        await session.dispose();
      }
      expect(read).toBeLessThanOrEqual(700 + 20 + 500 - 384 + 33);
    });
  });

  test('many at once, some of them aborted, with hardly any room: each as if it were alone', async () => {
    const parts = Array.from({ length: 3 }, () => randomTokens(150 + random.int(100)));
    const prefixCache = { everyTokens: 64, deviceBytes: await room(options, 2), hostBytes: 300_000 };
    await withCache({ ...prefixCache, store: new MemoryStore() }, async (model) => {
      let whole = 0;
      const client = async () => {
        for (let i = 0; i < 6; i++) {
          const more = Array.from({ length: random.int(3) }, () => parts[random.int(3)]!);
          const tokens = join(parts[random.int(2)]!, ...more, randomTokens(3));
          const ended = new AbortController();
          const session = model.createSession();
          if (random.int(3) === 0) setTimeout(() => ended.abort(), random.int(20));
          const usage = await session.prefill({ tokens }, { signal: ended.signal }).catch(() => undefined);
          if (usage !== undefined) {
            whole++;
            expect(await processed(session)).toBe(tokens.length - usage.cachedTokens);
            const wanted = plain.createSession();
            await wanted.prefill({ tokens });
            expectSameLogits(await session.logits(), await wanted.logits());
            await wanted.dispose();
          }
          await session.dispose();
        }
      };
      await Promise.all([client(), client(), client(), client()]);
      expect(whole).toBeGreaterThan(5);
    });
  });

  test('when the one that reads for all is aborted, the others read on', async () => {
    await withCache({ everyTokens: 4096 }, async (model) => {
      const text = randomTokens(1500);
      const ended = new AbortController();
      const [first, second] = [model.createSession(), model.createSession()];
      const aborted = first.prefill({ tokens: text }, { signal: ended.signal, onPrefillProgress: () => ended.abort() });
      const reads = second.prefill({ tokens: text });
      await expect(aborted).rejects.toMatchObject({ name: 'AbortError' });
      expect(await reads).toMatchObject({ promptTokens: 1500 });
      expectSameLogits(await second.logits(), (await reading(plain, text)).logits);
      for (const session of [first, second]) await session.dispose();
    });
  });

  test('what is used least recently leaves the device, and comes back from the memory of the process', async () => {
    const texts = Array.from({ length: 6 }, () => randomTokens(100));
    const places = (model: Model) => {
      const { prefixCache } = insideOf(model).core;
      const { tree } = prefixCache as unknown as { tree: { match(tokens: Int32Array): { entries: object[] } } };
      return texts.map((text) => {
        const [entry] = tree.match(text).entries as { checkpoint?: object; saved?: object }[];
        return entry === undefined ? '-' : entry.checkpoint ? 'device' : entry.saved ? 'host' : '-';
      });
    };
    const deviceBytes = await room(options, 3);
    await withCache({ deviceBytes }, async (model) => {
      for (const text of texts.slice(0, 3)) await reading(model, text);
      await reading(model, texts[0]!);
      for (const text of texts.slice(3)) {
        await reading(model, text);
        await whenKept(model); // one state leaves at a time
      }
      // The first was asked for twice, so the second and the third left before it, then the fourth.
      expect(places(model)).toEqual(['device', 'host', 'host', 'host', 'device', 'device']);
      const again = await reading(model, texts[1]!);
      expect(again.cached).toBe(100);
      expectSameLogits(again.logits, (await reading(plain, texts[1]!)).logits);
    });
    await withCache({ deviceBytes, hostBytes: 0 }, async (model) => {
      for (const text of texts) await reading(model, text);
      expect(places(model)).toEqual(['-', '-', '-', 'device', 'device', 'device']);
    });
  });

  test('a beginning that many texts share outlives the texts', async () => {
    const deviceBytes = await room(options, 3);
    await withCache({ deviceBytes, hostBytes: 0 }, async (model) => {
      const shared = randomTokens(100);
      await reading(model, shared);
      for (let i = 0; i < 12; i++) {
        expect((await reading(model, join(shared, randomTokens(70)))).cached).toBe(100);
        if (i > 3) await reading(model, randomTokens(80));
      }
    });
  });

  test('sessions get every slot and page that the cache holds', async () => {
    const alone = await load({ ...options, maxSnapshots: 1, prefixCache: { everyTokens: 64 } });
    for (let i = 0; i < 8; i++) await reading(alone, randomTokens(300));
    const { store } = insideOf(alone).core.scheduler;
    const pools = store.pagePools as unknown as { free: number[] }[];
    const { free } = store.states as unknown as { free: number[] };
    const hidden = [...pools.map((pool) => pool.free), free].map((list) => ({ list, taken: list.splice(0) }));
    const session = alone.createSession();
    expect(await session.prefill({ tokens: randomTokens(300) })).toMatchObject({ promptTokens: 300 });
    for (const { list, taken } of hidden) for (const one of taken) list.push(one);
    await alone.dispose();
  });
});

const small = { model: readGolden('qwen3_5/grouped').folder, maxSequences: 2 };

test('without the option nothing is kept and no memory is added', async () => {
  const model = await load(small);
  const { core } = insideOf(model);
  expect(core.prefixCache).toBeUndefined();
  const { free } = core.scheduler.store.states as unknown as { free: number[] };
  expect(free).toHaveLength(2 * 4 + 4);
  const text = randomTokens(100);
  await reading(model, text);
  expect((await reading(model, text)).cached).toBe(0);
  await model.dispose();
});

test('a state that is on its way to a store gives its pages to a session too', async () => {
  const alone = await load({ ...small, prefixCache: { store: new MemoryStore() } });
  await reading(alone, randomTokens(300));
  const { store } = insideOf(alone).core.scheduler;
  const pools = store.pagePools as unknown as { free: number[] }[];
  const hidden = pools.map(({ free }) => ({ free, taken: free.splice(0) }));
  const session = alone.createSession();
  expect(await session.prefill({ tokens: randomTokens(300) })).toMatchObject({ promptTokens: 300 });
  for (const { free, taken } of hidden) for (const page of taken) free.push(page);
  await alone.dispose();
});

test('options are checked', async () => {
  const wrong = [
    [{ everyTokens: 3 }, /everyTokens/],
    [{ deviceBytes: -1 }, /deviceBytes/],
    [{ deviceBytes: 10 }, /deviceBytes must be at least \d+, four states/],
    [{ hostBytes: 0.5 }, /hostBytes/],
    [{ store: {} }, /store must have a method get/],
    [{ onStoreError: 1 }, /onStoreError/],
    [7, /prefixCache must be an object/],
  ] as const;
  for (const [prefixCache, message] of wrong) {
    await expect(load({ ...small, prefixCache: prefixCache as never })).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(message),
    });
  }
});
