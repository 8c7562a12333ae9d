// Writings of a state to a store behind its guard: several at once, some that end early, and readers meanwhile.
import { MemoryStore } from '../../lib/cache/memory-store';
import type { PrefixStore } from '../../lib/cache/prefix-store';
import type { ByteSource } from '../../lib/state/byte-source';
import { bytes, guard, signal, taking } from '../support/guarded-store';

test('another writing of a state takes the place of the first, blocks of other names too', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  await guarded.set('a', [bytes(40, 1), bytes(30, 2), bytes(20, 3)]);
  await guarded.set('ab', [bytes(40, 1), bytes(30, 2)]);
  expect(await guarded.set('a', [bytes(40, 9), bytes(30, 8)])).toBe(true);
  expect([...(await store.keys())].map((key) => key.split('-')[0]).sort()).toEqual(['a', 'a', 'ab', 'ab']);
  expect(await guarded.read({ key: 'a' }, taking(40, 30), signal)).toEqual([bytes(40, 9), bytes(30, 8)]);
  expect(await guarded.set('a', [bytes(40, 9), bytes(30, 8)])).toBe(true); // the same once more
  expect([...(await store.keys())]).toHaveLength(4);
});

test('of two that write a state at once one stays whole', async () => {
  for (let round = 0; round < 25; round++) {
    const kept = new MemoryStore();
    let turns = round;
    const inTurns = async <T>(work: () => Promise<T>): Promise<T> => {
      const wait = (turns++ * 7) % 5;
      for (let i = 0; i < wait; i++) await new Promise((resolve) => setImmediate(resolve));
      return work();
    };
    const store: PrefixStore = {
      get: (key) => inTurns(() => kept.get(key)),
      set: (key, value) => inTurns(() => kept.set(key, value)),
      delete: (key) => inTurns(() => kept.delete(key)),
      keys: () => inTurns(() => kept.keys()),
    };
    const writing = (fill: number) =>
      guard(store).set(
        'a',
        [1, 2, 3].map((i) => bytes(40, fill + i)),
      );
    expect(await Promise.all([writing(10), writing(20)])).toEqual([true, true]);
    const values = (await guard(store).read({ key: 'a' }, taking(40, 40, 40), signal))!;
    const first = values[0]![0]!;
    expect(values).toEqual([0, 1, 2].map((i) => bytes(40, first + i)));
  }
});

test('what is written waits for a state that is read', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  await guarded.set('a', [bytes(40, 1), bytes(30, 2)]);
  let end = () => {};
  const used = new Promise<void>((resolve) => {
    end = resolve;
  });
  const read = guarded.read({ key: 'a' }, async () => used, signal);
  const written = guarded.set('b', [bytes(40, 3), bytes(30, 4)]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect([...(await store.keys())].filter((key) => key.startsWith('b'))).toEqual([]);
  end();
  await read;
  expect(await written).toBe(true);
  expect([...(await store.keys())].filter((key) => key.startsWith('b'))).toHaveLength(2);
});

test('a state whose reading from the device failed leaves no blocks', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  const lost = new Error('device lost');
  async function* pieces(): AsyncGenerator<Uint8Array> {
    for (const fill of [1, 2, 3]) yield bytes(40, fill);
    throw lost;
  }
  await expect(guarded.set('a', pieces())).rejects.toBe(lost);
  expect([...(await store.keys())]).toEqual([]);
});

test('one that fails leaves the blocks of the same writing that another process has ended', async () => {
  const store = new MemoryStore();
  const guarded = guard(store);
  const same = [1, 2, 3].map((fill) => bytes(40, fill));
  await guarded.set('a', same);
  async function* pieces(): AsyncGenerator<Uint8Array> {
    yield* same.slice(0, 2);
    throw new Error('gave way');
  }
  await expect(guarded.set('a', pieces())).rejects.toThrow('gave way');
  expect(await guarded.read({ key: 'a' }, taking(40, 40, 40), signal)).toEqual(same);
});

describe('a state that proves wrong while another process writes it anew', () => {
  const [old, anew] = [10, 20].map((fill) => [0, 1, 2].map((i) => bytes(40, fill + i)));

  test('is not deleted: what was written is read', async () => {
    const store = new MemoryStore();
    const [reader, writer] = [guard(store), guard(store)];
    await writer.set('a', old!);
    let reads = 0;
    const values = await reader.read(
      { key: 'a' },
      async (state) => {
        const taken = [await state.take(40)];
        if (reads++ === 0) await writer.set('a', anew!);
        for (let i = 0; i < 2; i++) taken.push(await state.take(40));
        return taken.some(({ length }) => length < 40) ? 'wrong' : taken.map((value) => value.slice());
      },
      signal,
    );
    expect(values).toEqual(anew);
    expect([...(await store.keys())]).toHaveLength(3);
  });

  test('and is wrong again, is left alone after the second reading', async () => {
    const store = new MemoryStore();
    let reads = 0;
    const spoiling = async (state: ByteSource) => {
      await state.take(1);
      await guard(store).set('a', [bytes(40, 50 + reads++), bytes(40, 1)]);
      return 'wrong' as const;
    };
    await guard(store).set('a', old!);
    expect(await guard(store).read({ key: 'a' }, spoiling, signal)).toBeUndefined();
    expect(reads).toBe(2);
    expect([...(await store.keys())]).toHaveLength(2);
  });
});

describe('a store that does not take every value of a state', () => {
  const state = [1, 2, 3, 4].map((fill) => bytes(40, fill));
  class Full extends MemoryStore {
    sets = 0;
    deletesFail = false;

    constructor(private readonly last: number) {
      super();
    }

    override async set(key: string, value: Uint8Array): Promise<void> {
      if (this.sets++ === this.last) throw new Error('no space left');
      await super.set(key, value);
    }

    override async delete(key: string): Promise<void> {
      if (this.deletesFail) throw new Error('lost');
      await super.delete(key);
    }
  }

  test.each([0, 1, 2, 3])('keeps none of them: value %i', async (last) => {
    const store = new Full(last);
    expect(await guard(store).set('a', state)).toBe(false);
    expect([...(await store.keys())]).toEqual([]);
  });

  test('keeps an earlier state, of the same bytes or others', async () => {
    for (const earlier of [state, [5, 6].map((fill) => bytes(40, fill))]) {
      const store = new Full(earlier.length + 2);
      await guard(store).set('a', earlier);
      expect(await guard(store).set('a', state)).toBe(false);
      expect(await guard(store).read({ key: 'a' }, taking(...earlier.map(() => 40)), signal)).toEqual(earlier);
      expect([...(await store.keys())]).toHaveLength(earlier.length);
    }
  });

  test('nor deletes them then: the next writing does', async () => {
    jest.useFakeTimers();
    try {
      const store = new Full(2);
      store.deletesFail = true;
      const guarded = guard(store);
      expect(await guarded.set('a', state)).toBe(false);
      expect([...(await store.keys())]).toHaveLength(2);
      jest.advanceTimersByTime(11_000);
      const begun = jest.fn();
      async function* pieces(): AsyncGenerator<Uint8Array> {
        begun();
        yield bytes(40, 1);
      }
      const writing = guarded.set('b', pieces());
      expect(begun).toHaveBeenCalled(); // before anything is waited for: the source holds what it reads
      expect(await writing).toBe(false); // while the first ones cannot be deleted
      const { storeErrors } = guarded.counts;
      expect(await guarded.set('b', [bytes(40, 1)])).toBe(false); // while the store rests
      expect(guarded.counts.storeErrors).toBe(storeErrors);
      store.deletesFail = false;
      jest.advanceTimersByTime(11_000);
      expect(await guarded.set('b', [bytes(40, 1)])).toBe(true);
      expect([...(await store.keys())]).toEqual(['b']);
    } finally {
      jest.useRealTimers();
    }
  });
});
