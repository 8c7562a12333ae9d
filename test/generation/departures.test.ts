// States that leave the device: sessions go first.
import { setTimeout } from 'node:timers/promises';
import { MemoryStore } from '../../lib/cache/memory-store';
import { load } from '../../lib/generation/load';
import { seeded } from '../support/arrays';
import { reading, whenKept } from '../support/cached-reading';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

const random = seeded(18);
const small = { model: readGolden('qwen3_5/grouped').folder, maxSequences: 2 };
const text = Int32Array.from({ length: 300 }, () => random.int(200));

test('states leave once prompts have been read, and also where there is always some prompt', async () => {
  for (const ends of [true, false]) {
    const [read, written]: [number[], number[]] = [[], []];
    class Watched extends MemoryStore {
      override set(key: string, value: Uint8Array): Promise<void> {
        written.push(performance.now());
        return super.set(key, value);
      }
    }
    const store = new Watched();
    const model = await load({ ...small, prefixCache: { store } });
    const { departures } = insideOf(model).core.prefixCache!;
    const pieces = departures.pieces.bind(departures);
    departures.pieces = async function* (...given) {
      for await (const piece of pieces(...given)) {
        read.push(performance.now());
        yield piece;
      }
    };
    let end = () => {};
    const prompt = new Promise<void>((resolve) => {
      end = resolve;
    });
    void departures.after(prompt);
    await reading(model, text);
    let ended = Number.NaN;
    if (ends) {
      while (read.length === 0) await setTimeout(5);
      expect(written).toEqual([]);
      ended = performance.now();
      end();
    }
    await whenKept(model);
    expect([read.length, written.length, [...(await store.keys())].length]).toEqual([1, 1, 1]);
    if (ends) expect(written[0]).toBeGreaterThan(ended);
    else expect(written[0]! - read[0]!).toBeGreaterThan(150);
    end();
    await model.dispose();
  }
});

test('between its parts a state waits for another one that is loaded', async () => {
  const model = await load({ ...small, prefixCache: { store: new MemoryStore() } });
  const { prefixCache, scheduler } = insideOf(model).core;
  const { states } = scheduler.store;
  let loaded = () => {};
  let parts = 0;
  const readPart = states.readPart.bind(states);
  states.readPart = (...given) => {
    if (++parts === 2) {
      const load = new Promise<void>((resolve) => {
        loaded = resolve;
      });
      void prefixCache!.departures.loads.add(load);
    }
    return readPart(...given);
  };
  await reading(model, text);
  while (parts < 2) await setTimeout(1);
  await setTimeout(250); // longer than for prompts
  expect(parts).toBe(2);
  loaded();
  await whenKept(model);
  expect(parts).toBeGreaterThan(2);
  await model.dispose();
});

test('a load that never ends keeps no state on the device', async () => {
  const model = await load({ ...small, prefixCache: { store: new MemoryStore() } });
  void insideOf(model).core.prefixCache!.departures.loads.add(new Promise(() => undefined));
  await reading(model, text);
  await whenKept(model);
  await model.dispose();
});

test('a state that comes from the store is one that is loaded, until it is there', async () => {
  const store = new MemoryStore();
  const before = await load({ ...small, prefixCache: { store } });
  await reading(before, text);
  await before.dispose(); // waits for the store
  const model = await load({ ...small, prefixCache: { store } });
  const { loads } = insideOf(model).core.prefixCache!.departures;
  const get = store.get.bind(store);
  let isLoading = false;
  store.get = async (key) => {
    const value = await get(key);
    isLoading ||= !loads.isEmpty;
    return value;
  };
  await reading(model, text);
  expect([isLoading, loads.isEmpty]).toEqual([true, true]);
  await model.dispose();
});
