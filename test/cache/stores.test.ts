// The law of a store, for each of them, and what each of them adds.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DirectoryStore } from '../../lib/cache/directory-store';
import { MemoryStore } from '../../lib/cache/memory-store';
import type { PrefixStore } from '../../lib/cache/prefix-store';

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-stores-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill);
let folders = 0;
const folder = () => path.join(scratch, String(folders++));

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

  test('refuses a value that is no bytes', async () => {
    const store = make(1000);
    for (const value of [null, undefined, 3, 'bytes', {}, [1, 2], new Float32Array(1)]) {
      await expect(store.set('a', value as never)).rejects.toMatchObject({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/Store: value must be a Uint8Array, got /),
      });
    }
    await store.set('b', Buffer.from([1]));
    expect([...(await store.keys())]).toEqual(['b']);
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

  test('refuses memory that is none', async () => {
    const store = new DirectoryStore(folder());
    await store.set('a', bytes(5, 3));
    for (const memory of [null, [], new Float32Array(2)]) {
      const refused = { code: 'ERR_ARGUMENT', message: expect.stringContaining('DirectoryStore: memory must be') };
      await expect(store.get('a', memory as unknown as Uint8Array)).rejects.toMatchObject(refused);
    }
  });

  test('answers in the memory that it is given, where the value fits', async () => {
    const store = new DirectoryStore(folder());
    await store.set('a', bytes(5, 3));
    for (const length of [0, 4, 5, 9]) {
      const memory = bytes(length, 7);
      const value = (await store.get('a', memory))!;
      expect(new Uint8Array(value)).toEqual(bytes(5, 3));
      expect(value.buffer === memory.buffer).toBe(length >= 5);
      expect([...memory.subarray(5)]).toEqual(length > 5 ? [7, 7, 7, 7] : []);
    }
    expect(await store.get('a', new Uint8Array(2 ** 31))).toEqual(bytes(5, 3)); // more than one read may be
    await store.set('none', bytes(0, 0));
    expect(await store.get('none', bytes(4, 7))).toHaveLength(0);
    expect(await store.get('none')).toHaveLength(0);
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
