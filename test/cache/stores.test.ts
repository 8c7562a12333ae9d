// The law of a store, for each of them, and what each of them adds.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DirectoryStore } from '../../lib/cache/directory-store';
import { GuardedStore } from '../../lib/cache/guarded-store';
import { MemoryStore } from '../../lib/cache/memory-store';
import type { PrefixStore } from '../../lib/cache/prefix-store';
import { formatVersion } from '../../lib/state/snapshot-format';

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-stores-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill);
let folders = 0;
const folder = () => path.join(scratch, String(folders++));
const signal = new AbortController().signal;

describe.each<[string, (maxBytes: number) => PrefixStore]>([
  ['MemoryStore', (maxBytes) => new MemoryStore({ maxBytes })],
  ['DirectoryStore', (maxBytes) => new DirectoryStore(folder(), { maxBytes })],
])('%s', (_, make) => {
  test('gives back what was set, until it is deleted', async () => {
    const store = make(1000);
    expect([...(await store.keys())]).toEqual([]);
    expect(await store.get('a')).toBeUndefined();
    await store.delete('a');
    await Promise.all([store.set('a', bytes(3, 1)), store.set('b-2', bytes(4, 2)), store.set('a', bytes(5, 3))]);
    expect(new Uint8Array((await store.get('a'))!)).toEqual(bytes(5, 3));
    expect([...(await store.keys())].sort()).toEqual(['a', 'b-2']);
    await store.delete('a');
    expect([...(await store.keys())]).toEqual(['b-2']);
  });

  test('refuses a budget that is no number', () => {
    for (const maxBytes of [-1, Number.NaN, '5' as never]) {
      expect(() => make(maxBytes)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
    }
  });

  test('gives up what was used least recently', async () => {
    const store = make(1000);
    const pause = () => new Promise((resolve) => setTimeout(resolve, 20)); // times of files may be coarse
    for (const key of ['a', 'b', 'c']) {
      await store.set(key, bytes(300, 1));
      await pause();
    }
    await store.get('a');
    await pause();
    await store.set('d', bytes(300, 1));
    expect([...(await store.keys())].sort()).toEqual(['a', 'c', 'd']);
    await store.set('e', bytes(1001, 1));
    expect([...(await store.keys())]).not.toContain('e');
  });
});

describe('DirectoryStore', () => {
  test('refuses keys that leave its folder', async () => {
    const store = new DirectoryStore(folder());
    await expect(store.get('../a')).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await expect(store.set('', bytes(1, 1))).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(() => new DirectoryStore('')).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });

  test('clears what killed processes left, and leaves files of others alone', async () => {
    const place = folder();
    const store = new DirectoryStore(place);
    await store.set('a', bytes(1, 1));
    for (const name of ['.old.state.0.part', '.new.state.0.part', 'notes.txt'])
      writeFileSync(path.join(place, name), 'x');
    utimesSync(path.join(place, '.old.state.0.part'), 1000, 1000);
    await store.set('b', bytes(1, 1));
    expect(readdirSync(place).sort()).toEqual(['.new.state.0.part', 'a.state', 'b.state', 'notes.txt']);
    expect([...(await store.keys())].sort()).toEqual(['a', 'b']);
  });

  test('a process that is killed while it writes leaves whole files', async () => {
    const place = folder();
    const program = path.join(__dirname, '..', 'support', 'programs', 'store-for-ever.js');
    for (let i = 0; i < 5; i++) {
      const child = spawn(process.execPath, [program, place], { stdio: ['ignore', 'pipe', 'inherit'] });
      const exited = once(child, 'exit');
      await Promise.race([once(child.stdout, 'data'), exited]);
      await new Promise((resolve) => setTimeout(resolve, 13 * i));
      child.kill('SIGKILL');
      await exited;
      expect(child.signalCode).toBe('SIGKILL');
    }
    const store = new DirectoryStore(place);
    const keys = [...(await store.keys())];
    expect(keys.length).toBeGreaterThan(0);
    for (const key of keys) {
      const value = (await store.get(key))!;
      expect(value).toHaveLength(2 ** 21);
      expect(value.every((byte) => byte === value[0])).toBe(true);
    }
    expect(existsSync(place)).toBe(true);
  });
});

describe('GuardedStore', () => {
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
      return Promise.all(keys.map(async (key) => (await (await mine!.open(key, signal))!.take(1))[0]));
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
    const guarded = new GuardedStore(store, {}, () => {});
    const key = guarded.keyOf(tokens);
    const pieces = [bytes(40, 1), bytes(30, 2), bytes(20, 3)];
    expect(await guarded.set(key, pieces)).toBe(true);
    expect(order).toEqual([expect.stringMatching(/-1$/), expect.stringMatching(/-2$/), key]);
    for (const name of order) expect(name).toMatch(/^[a-z0-9-]{1,120}$/);
    expect(await guarded.candidates(tokens, 0, signal)).toEqual([{ key, prefix: order[0]!.slice(0, -1), blocks: 2 }]);
    const source = (await guarded.open({ key }, signal))!;
    for (const [taken, fill] of [
      [10, 1],
      [30, 1],
      [30, 2],
      [20, 3],
    ] as const) {
      expect(await source.take(taken)).toEqual(bytes(taken, fill));
    }
    expect(guarded.counts).toMatchObject({ storeReadBytes: 90, storeWrittenBytes: 90 });
    await guarded.delete(key, signal);
    expect([...(await store.keys())]).toEqual([]);
  });

  test('listed blocks are asked for together with the first value, and only those of its writing are used', async () => {
    const store = new MemoryStore();
    const guarded = new GuardedStore(store, {}, () => {});
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
    const opening = new GuardedStore(late, {}, () => {}).open(listed!, signal);
    await new Promise((resolve) => setImmediate(resolve));
    expect(asked).toEqual([key, `${listed!.prefix}1`, `${listed!.prefix}2`]);
    await guarded.set(key, [bytes(40, 9), bytes(30, 8), bytes(20, 7)]); // another writing, while it is read
    answer();
    const source = (await opening)!;
    for (const [taken, fill] of [
      [40, 9],
      [30, 8],
      [20, 7],
    ] as const) {
      expect(await source.take(taken)).toEqual(bytes(taken, fill));
    }
    const [both] = await guarded.candidates(tokens, 0, signal);
    await store.set(`${key}-${'0'.repeat(16)}-1`, bytes(1, 1));
    const [mixed] = await guarded.candidates(tokens, 0, signal);
    expect([both!.blocks, both!.prefix === undefined, mixed!.prefix]).toEqual([2, false, undefined]);
  });

  test('another writing of a state takes the place of the first, blocks of other names too', async () => {
    const store = new MemoryStore();
    const guarded = new GuardedStore(store, {}, () => {});
    await guarded.set('a', [bytes(40, 1), bytes(30, 2), bytes(20, 3)]);
    await guarded.set('ab', [bytes(40, 1), bytes(30, 2)]);
    expect(await guarded.set('a', [bytes(40, 9), bytes(30, 8)])).toBe(true);
    expect([...(await store.keys())].map((key) => key.split('-')[0]).sort()).toEqual(['a', 'a', 'ab', 'ab']);
    const source = (await guarded.open({ key: 'a' }, signal))!;
    expect(await source.take(40)).toEqual(bytes(40, 9));
    expect(await source.take(30)).toEqual(bytes(30, 8));
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
        new GuardedStore(store, {}, () => {}).set(
          'a',
          [1, 2, 3].map((i) => bytes(40, fill + i)),
        );
      expect(await Promise.all([writing(10), writing(20)])).toEqual([true, true]);
      const source = (await new GuardedStore(store, {}, () => {}).open({ key: 'a' }, signal))!;
      const [first] = await source.take(40);
      expect(await source.take(40)).toEqual(bytes(40, first! + 1));
      expect(await source.take(40)).toEqual(bytes(40, first! + 2));
    }
  });

  test('a state whose reading from the device failed leaves no blocks', async () => {
    const store = new MemoryStore();
    const guarded = new GuardedStore(store, {}, () => {});
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
    const guarded = new GuardedStore(store, {}, () => {});
    const same = [1, 2, 3].map((fill) => bytes(40, fill));
    await guarded.set('a', same);
    async function* pieces(): AsyncGenerator<Uint8Array> {
      yield* same.slice(0, 2);
      throw new Error('gave way');
    }
    await expect(guarded.set('a', pieces())).rejects.toThrow('gave way');
    const source = (await guarded.open({ key: 'a' }, signal))!;
    for (const piece of same) expect(await source.take(40)).toEqual(piece);
  });

  test('states in another format have other keys', () => {
    const kind = JSON.stringify({ format: formatVersion, model: 'a' });
    const mark = createHash('sha256').update(kind).digest('hex').slice(0, 16);
    const key = new GuardedStore(new MemoryStore(), { model: 'a' }, () => {}).keyOf(tokens);
    expect(key.startsWith(`${mark}-50-`)).toBe(true);
  });

  test('a state that lost its first value leaves none of the others', async () => {
    const store = new MemoryStore();
    const guarded = new GuardedStore(store, {}, () => {});
    await guarded.set('a', [bytes(40, 1), bytes(30, 2), bytes(20, 3)]);
    await guarded.set('b', [bytes(40, 1), bytes(30, 2)]);
    await store.delete('a');
    expect(await guarded.open({ key: 'a' }, signal)).toBeUndefined();
    expect([...(await store.keys())].map((key) => key[0])).toEqual(['b', 'b']);
  });

  test('a state that lacks a value ends early; a store that fails between two is no end', async () => {
    const store = new MemoryStore();
    const guarded = new GuardedStore(store, {}, () => {});
    await guarded.set('a', [bytes(40, 1), bytes(30, 2)]);
    const source = (await guarded.open({ key: 'a' }, signal))!;
    await source.take(40);
    await store.delete([...(await store.keys())].find((key) => key !== 'a')!);
    expect(await source.take(30)).toHaveLength(0);
    const get = async (key: string) => {
      if (key === 'a') return bytes(40, 1);
      throw new Error('lost');
    };
    const failing = new GuardedStore({ get, set: store.set, delete: store.delete, keys: store.keys }, {}, () => {});
    const broken = (await failing.open({ key: 'a' }, signal))!;
    await broken.take(40);
    await expect(broken.take(30)).rejects.toThrow('the store failed');
  });

  test('a failure is told, is a miss, and gives the store a rest', async () => {
    const errors: unknown[] = [];
    const lost = new Error('lost');
    let calls = 0;
    const fail = () => {
      calls++;
      throw lost;
    };
    const store = new GuardedStore({ get: fail, set: fail, delete: fail, keys: fail }, {}, (error) =>
      errors.push(error),
    );
    expect(await store.open({ key: 'a' }, signal)).toBeUndefined();
    expect(await store.set('a', [bytes(1, 1)])).toBe(false);
    expect(await store.candidates(tokens, 0, signal)).toEqual([]);
    await store.delete('a', signal);
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
});
