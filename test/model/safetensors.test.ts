// The reader refuses every file that is not what it says it is, with a code, and never crashes.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { LinattnError } from '../../lib/errors';
import { parseHeader, readCheckpoint, readSafetensors } from '../../lib/model/safetensors';
import { safetensorsBytes } from '../support/make-safetensors';

const folder = mkdtempSync(path.join(os.tmpdir(), 'linattn-'));
afterAll(() => rmSync(folder, { recursive: true }));

const good = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'BF16', shape: [], data_offsets: [24, 26] },
};
const data = new Uint8Array(26);

function write(bytes: Uint8Array): string {
  const file = path.join(folder, 'model.safetensors');
  writeFileSync(file, bytes);
  return file;
}

test('reads names, dtypes, shapes and places', async () => {
  const file = write(safetensorsBytes(good, data));
  const start = 8 + Buffer.byteLength(JSON.stringify(good));
  expect(await readSafetensors(file)).toEqual([
    { name: 'a', file, dtype: 'float32', shape: [2, 3], offset: start, byteLength: 24 },
    { name: 'b', file, dtype: 'bfloat16', shape: [], offset: start + 24, byteLength: 2 },
  ]);
});

describe('refuses', () => {
  const entry = (change: object) => ({ a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24], ...change } });
  test.each<[string, Uint8Array, RegExp]>([
    ['an empty file', new Uint8Array(), /too few/],
    ['a file that ends in its header', safetensorsBytes(good, data).subarray(0, 40), /in a file of 40/],
    ['a header longer than 100 MB', Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0), /at most 100000000/],
    ['a header of 2^64 - 1 bytes', new Uint8Array(8).fill(255), /at most/],
    ['a header that is not JSON', safetensorsBytes('{"a": '), /not JSON/],
    ['a header that is not UTF-8', safetensorsBytes('').subarray(0, 7), /too few/],
    ['a header that is a list', safetensorsBytes([]), /must be a JSON object/],
    ['an entry that is a number', safetensorsBytes({ a: 1 }), /must be an object/],
    ['an unknown dtype', safetensorsBytes(entry({ dtype: 'F31' }), data), /unknown dtype "F31"/],
    ['a dtype that is inherited', safetensorsBytes(entry({ dtype: 'constructor' }), data), /unknown dtype/],
    ['a negative size', safetensorsBytes(entry({ shape: [-2, -3] }), data), /whole numbers >= 0/],
    ['a size of a half', safetensorsBytes(entry({ shape: [0.5] }), data), /whole numbers >= 0/],
    ['sizes beyond 2^53', safetensorsBytes(entry({ shape: [2 ** 40, 2 ** 40] }), data), /needs/],
    ['offsets in the wrong order', safetensorsBytes(entry({ data_offsets: [24, 0] }), data), /must lie in/],
    ['offsets beyond the file', safetensorsBytes(entry({ data_offsets: [8, 32] }), data), /must lie in the file's 26/],
    ['offsets that do not fit the shape', safetensorsBytes(entry({ data_offsets: [0, 20] }), data), /needs 24 bytes/],
    [
      'overlapping tensors',
      safetensorsBytes({ a: good.a, c: { dtype: 'U8', shape: [4], data_offsets: [20, 24] } }, data),
      /c: its data overlaps/,
    ],
  ])('%s', async (_, bytes, message) => {
    const reading = readSafetensors(write(bytes));
    await expect(reading).rejects.toMatchObject({ code: 'ERR_SAFETENSORS', message: expect.stringMatching(message) });
  });

  test('a missing file', async () => {
    const reading = readSafetensors(path.join(folder, 'missing'));
    await expect(reading).rejects.toMatchObject({ code: 'ERR_FILE', message: expect.stringContaining('missing') });
  });

  test('a folder', async () => {
    await expect(readSafetensors(folder)).rejects.toMatchObject({
      code: 'ERR_FILE',
      message: expect.stringContaining(folder),
    });
  });
});

describe('a sharded checkpoint', () => {
  const index = path.join(folder, 'model.safetensors.index.json');
  afterEach(() => rmSync(index));

  test('takes each tensor from the shard that the index names', async () => {
    writeFileSync(path.join(folder, 'one'), safetensorsBytes(good, data));
    writeFileSync(path.join(folder, 'two'), safetensorsBytes(good, data));
    writeFileSync(index, JSON.stringify({ weight_map: { a: 'one', b: 'two' } }));
    const checkpoint = await readCheckpoint(folder);
    expect(path.basename(checkpoint.get('a')!.file)).toBe('one');
    expect(path.basename(checkpoint.get('b')!.file)).toBe('two');
  });

  test.each([
    ['leaves the folder', { weight_map: { a: '../secret' } }],
    ['is no file name', { weight_map: { a: 3 } }],
    ['has no weight_map', {}],
    ['is a list', []],
  ])('whose index %s is refused', async (_, content) => {
    writeFileSync(index, JSON.stringify(content));
    await expect(readCheckpoint(folder)).rejects.toMatchObject({ code: 'ERR_SAFETENSORS' });
  });
});

test('any bytes give tensors inside the file, or ERR_SAFETENSORS', () => {
  const size = fc.oneof(fc.nat(40), fc.constantFrom(-1, 0.5, 2 ** 53, 1e308, Number.NaN));
  const entry = fc.record(
    {
      dtype: fc.oneof(fc.constantFrom('F32', 'BF16', 'U8', 'F64', 'x'), fc.anything()),
      shape: fc.oneof(fc.array(size, { maxLength: 3 }), fc.anything()),
      data_offsets: fc.oneof(fc.tuple(size, size), fc.anything()),
    },
    { requiredKeys: [] },
  );
  const header = fc.oneof(
    fc.dictionary(fc.string(), entry, { maxKeys: 4 }),
    fc.json().map((text) => JSON.parse(text)),
  );
  fc.assert(
    fc.property(header, fc.nat(64), (content, dataBytes) => {
      const json = Buffer.from(JSON.stringify(content, (_, value) => (typeof value === 'bigint' ? 1 : value)) ?? '');
      try {
        for (const tensor of parseHeader('file', json, dataBytes)) {
          expect(tensor.offset).toBeGreaterThanOrEqual(8 + json.length);
          expect(tensor.offset + tensor.byteLength).toBeLessThanOrEqual(8 + json.length + dataBytes);
        }
      } catch (error) {
        if (!LinattnError.isInstance(error)) throw error;
        expect(error.code).toBe('ERR_SAFETENSORS');
      }
    }),
    { numRuns: Number(process.env.LINATTN_FUZZ_RUNS ?? 3000) },
  );
});
