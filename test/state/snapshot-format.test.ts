// The frame of a saved state: blocks come back whole and in place from every source, and one that is not as it was written
// is not given out.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ByteSource, FileSource, MemorySource, StreamSource, ValuesSource } from '../../lib/state/byte-source';
import { FramedReader, framed } from '../../lib/state/snapshot-format';
import { seeded } from '../support/arrays';

const block = 2 ** 24;
const bytes = 2 * block + 12_345;
const random = seeded(4);
const content = Buffer.alloc(bytes);
for (let at = 0; at + 4 < bytes; at += 4) content.writeUInt32LE(random.int(2 ** 32), at);
const header = { of: 'a test' };
let pieces: Uint8Array[];
let whole: Buffer;
let scratch: string;

beforeAll(async () => {
  const fill = async (target: Uint8Array, at: number) => {
    target.set(content.subarray(at, at + target.length));
  };
  pieces = [];
  for await (const piece of framed(header, { bytes, fill })) pieces.push(piece);
  whole = Buffer.concat(pieces);
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-format-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

/** What a reader gives out, with what it does not give out left as zeros. */
async function read(source: ByteSource): Promise<{ got: Buffer; error: unknown }> {
  const got = Buffer.alloc(bytes);
  const reader = new FramedReader('test', source);
  const place = async (piece: Uint8Array, at: number) => {
    got.set(piece, at);
  };
  const error = await reader
    .header()
    .then((found) => expect(found).toEqual(header))
    .then(() => reader.content(bytes, place))
    .catch((failure: unknown) => failure);
  await reader.close();
  return { got, error };
}

async function* stream(size: number): AsyncGenerator<Uint8Array> {
  const memory = new Uint8Array(size);
  for (let at = 0; at < whole.length; at += size) {
    const chunk = whole.subarray(at, at + size);
    memory.set(chunk);
    yield memory.subarray(0, chunk.length); // the same memory again and again
  }
}

test('a piece is a block of at most 16 MiB, its checksum, and with the first one the header', () => {
  expect(pieces.map(({ length }) => length)).toEqual([pieces[0]!.length, block + 8, 12_345 + 8]);
  expect(pieces[0]!.length).toBeLessThan(block + 200);
});

test.each<[string, () => Promise<ByteSource>]>([
  ['memory', async () => new MemorySource(whole)],
  [
    'shared memory',
    async () => {
      const shared = new Uint8Array(new SharedArrayBuffer(whole.length));
      shared.set(whole);
      return new MemorySource(shared);
    },
  ],
  [
    'a file',
    async () => {
      writeFileSync(path.join(scratch, 'whole'), whole);
      return new FileSource(path.join(scratch, 'whole'));
    },
  ],
  ['a stream', async () => new StreamSource('test', stream(1_000_003))],
  ['values', async () => new ValuesSource(async (index) => pieces[index]!)],
])('comes back from %s', async (_, open) => {
  const { got, error } = await read(await open());
  expect([error, Buffer.compare(got, content)]).toEqual([undefined, 0]);
});

test('a flipped byte in any block or checksum is refused, and its block is not given out', async () => {
  const start = pieces[0]!.length - block - 8;
  const places = [
    start,
    start + block,
    start + block + 8,
    whole.length - 9,
    whole.length - 1,
    start + random.int(bytes),
  ];
  for (const at of places) {
    const flipped = Buffer.from(whole);
    flipped[at]! ^= 1 << random.int(8);
    const { got, error } = await read(new MemorySource(flipped));
    expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT', message: 'test: its content was changed' });
    const spoilt = Math.floor((at - start) / (block + 8)) * block;
    const kept = got.subarray(spoilt, spoilt + block);
    expect(Buffer.compare(kept, Buffer.alloc(kept.length))).toBe(0);
  }
});

test('blocks in another order, of another header, cut, or with more behind them are refused', async () => {
  const second = pieces[1]!;
  const swapped = [pieces[0]!.slice(), second.slice(), pieces[2]!];
  const first = swapped[0]!.subarray(-(block + 8));
  const kept = first.slice();
  first.set(second);
  swapped[1]!.set(kept);
  const other: Uint8Array[] = [];
  const fill = async () => undefined;
  for await (const piece of framed({ of: 'another' }, { bytes, fill })) other.push(piece);
  const corrupt = { code: 'ERR_SNAPSHOT_CORRUPT' };
  const wrong: Uint8Array[][] = [
    swapped,
    [pieces[0]!, other[1]!, pieces[2]!],
    [pieces[0]!, second.subarray(0, -1), pieces[2]!],
    [pieces[0]!, Buffer.concat([second, second]), pieces[2]!],
    [Buffer.concat([pieces[0]!, Buffer.alloc(1)]), second, pieces[2]!],
    [pieces[0]!, second, new Uint8Array(0)],
  ];
  for (const some of wrong) {
    expect((await read(new ValuesSource(async (index) => some[index]!))).error).toMatchObject(corrupt);
    expect((await read(new MemorySource(Buffer.concat(some)))).error).toMatchObject(corrupt);
  }
  const more = Buffer.concat([whole, Buffer.alloc(1)]);
  expect((await read(new MemorySource(more))).error).toMatchObject(corrupt);
  writeFileSync(path.join(scratch, 'more'), more);
  expect((await read(new FileSource(path.join(scratch, 'more')))).error).toMatchObject(corrupt);
});

test('values are asked for several at a time, and no more of them while those have no place yet', async () => {
  const count = 20;
  const many: Uint8Array[] = [];
  const size = count * block;
  for await (const piece of framed(header, { bytes: size, fill: async () => undefined })) many.push(piece);
  let asked = 0;
  const open: (() => void)[] = [];
  const reader = new FramedReader(
    'test',
    new ValuesSource(async (index) => {
      asked++;
      return many[index]!;
    }),
  );
  await reader.header();
  const reading = reader.content(size, () => new Promise<void>((resolve) => open.push(resolve)));
  const waiting = async (wanted: number) => {
    while (open.length < wanted) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 50));
    return asked;
  };
  const most = await waiting(8);
  expect(most).toBe(8);
  for (const place of open.splice(0)) place();
  expect(await waiting(8)).toBe(16);
  const timer = setInterval(() => {
    for (const place of open.splice(0)) place();
  }, 1);
  await reading;
  clearInterval(timer);
  expect(asked).toBe(count);
});

test('memory may change, or go to another thread, while it is read', async () => {
  const own = new Uint8Array(whole);
  const readers = Array.from({ length: 6 }, () => new FramedReader('test', new MemorySource(own)));
  for (const reader of readers) await reader.header();
  const reading = readers.map((reader) =>
    reader.content(bytes, async () => undefined).catch((error: unknown) => error),
  );
  await new Promise((resolve) => setImmediate(resolve));
  structuredClone(own.buffer, { transfer: [own.buffer] });
  for (const error of await Promise.all(reading)) {
    if (error !== undefined) expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
  }
  expect((await read(new MemorySource(own))).error).toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
});

test('a stream that stalls behind a block that proves false is not waited for', async () => {
  const wrong = pieces[0]!.slice();
  wrong[wrong.length - 9]! ^= 1;
  async function* stalled(): AsyncGenerator<Uint8Array> {
    yield wrong;
    await new Promise(() => undefined);
  }
  const { error } = await read(new StreamSource('test', stalled()));
  expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
});

const onPosix = process.platform === 'win32' ? test.skip : test;

onPosix('a named pipe is opened once, and one that nobody writes to is left when the signal comes', async () => {
  const file = path.join(scratch, 'pipe');
  execFileSync('mkfifo', [file]);
  writeFileSync(path.join(scratch, 'content'), whole);
  const writer = spawn('sh', ['-c', 'cat "$0" > "$1"', path.join(scratch, 'content'), file], { stdio: 'inherit' });
  const { got, error } = await read(new FileSource(file));
  expect([error, Buffer.compare(got, content)]).toEqual([undefined, 0]);
  if (writer.exitCode === null) await once(writer, 'exit');
  expect(writer.exitCode).toBe(0);
  const reason = new Error('enough');
  const ended = new AbortController();
  const reader = new FramedReader('test', new FileSource(file), ended.signal);
  const waiting = reader.header();
  setTimeout(() => ended.abort(reason), 20);
  await expect(waiting).rejects.toBe(reason);
  await reader.close();
  writeFileSync(file, ''); // the thread that opens it has somebody to wait for
});
