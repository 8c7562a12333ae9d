// Fuzzing the safetensors reader: bytes of good files changed, cut, doubled and mixed. LINATTN_FUZZ_RUNS sets how many.
import { LinattnError } from '../../lib/errors';
import { parseHeader, type StoredTensor } from '../../lib/model/safetensors';
import { seeded } from '../support/arrays';

const runs = Number(process.env.LINATTN_FUZZ_RUNS ?? 1_000_000);
const random = seeded(Number(process.env.LINATTN_FUZZ_SEED ?? 1));

const seeds = [
  {
    a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
    b: { dtype: 'BF16', shape: [], data_offsets: [24, 26] },
  },
  { __metadata__: { format: 'pt' }, x: { dtype: 'U8', shape: [0], data_offsets: [5, 5] } },
  { 'a.b': { dtype: 'I64', shape: [1, 1, 1, 1], data_offsets: [8, 16] } },
].map((header) => Buffer.from(JSON.stringify(header)));
const words = [
  '"dtype"',
  '"F64"',
  '-1',
  '1e999',
  '9007199254740993',
  '[',
  ']',
  '{',
  '}',
  'null',
  '"\\u0000"',
  ',',
  ':',
];

function mutated(seed: Buffer): Buffer {
  let bytes = Buffer.from(seed);
  for (let n = 1 + random.int(6); n > 0; n--) {
    const at = random.int(bytes.length + 1);
    const kind = random.int(5);
    if (kind === 0 && at < bytes.length) bytes[at] = random.int(256);
    if (kind === 1) bytes = bytes.subarray(0, at);
    if (kind === 2)
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(words[random.int(words.length)]!), bytes.subarray(at)]);
    if (kind === 3) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.int(bytes.length + 1))]);
    if (kind === 4 && at < bytes.length && /\d/.test(String.fromCharCode(bytes[at]!))) bytes[at] = 48 + random.int(10);
  }
  return bytes;
}

test(`${runs} headers give tensors inside the file, or ERR_SAFETENSORS`, () => {
  const outcomes = { read: 0, refused: 0 };
  for (let run = 0; run < runs; run++) {
    const json = mutated(seeds[run % seeds.length]!);
    const dataBytes = random.int(64);
    let tensors: StoredTensor[];
    try {
      tensors = parseHeader('file', json, dataBytes);
    } catch (error) {
      if (!LinattnError.isInstance(error) || error.code !== 'ERR_SAFETENSORS') throw error;
      outcomes.refused++;
      continue;
    }
    outcomes.read++;
    const places = tensors.filter(({ byteLength }) => byteLength > 0).sort((a, b) => a.offset - b.offset);
    for (const [i, { offset, byteLength }] of places.entries()) {
      const before = places[i - 1];
      const reached = before === undefined ? 8 + json.length : before.offset + before.byteLength;
      if (offset < reached || offset + byteLength > 8 + json.length + dataBytes) {
        throw new Error(`outside its place: ${json.toString('latin1')}`);
      }
    }
  }
  expect(outcomes.read).toBeGreaterThan(runs / 100);
  expect(outcomes.refused).toBeGreaterThan(runs / 100);
}, 600_000);
