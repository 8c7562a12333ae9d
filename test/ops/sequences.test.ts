// Sequences: what its constructor refuses, and the packing of lengths.
import { LinattnError } from '../../lib/errors';
import { packedSequences, Sequences, sequences, uniformSequences } from '../../lib/ops/sequences';
import { Tensor } from '../../lib/tensor/tensor';

const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length] });
const valid = () => ({
  rows: 2,
  tokens: 4,
  maxTokens: 3,
  singleRows: 1,
  offsets: ints([0, 1, 4]),
  readSlots: ints([-1, 0]),
  writeSlots: ints([1, 2]),
  positions: ints([0, 64]),
});

test('packedSequences counts the singles that come first', async () => {
  const packed = packedSequences([1, 1, 3, 1], { positions: [5, 0, 64, 7], writeSlots: [0, 1, 2, -1] });
  expect(packed).toMatchObject({ rows: 4, tokens: 6, maxTokens: 3, singleRows: 2 });
  expect(await packed.offsets.read()).toEqual(Int32Array.of(0, 1, 2, 5, 6));
  expect(await packed.positions.read()).toEqual(Int32Array.of(5, 0, 64, 7));
  expect(await packed.readSlots.read()).toEqual(Int32Array.of(-1, -1, -1, -1));
  expect(await packed.writeSlots.read()).toEqual(Int32Array.of(0, 1, 2, -1));
});

test('uniformSequences is a batch of one length', async () => {
  const uniform = uniformSequences(3, 5);
  expect(uniform).toMatchObject({ rows: 3, tokens: 15, maxTokens: 5, singleRows: 0 });
  expect(await uniform.offsets.read()).toEqual(Int32Array.of(0, 5, 10, 15));
  expect(packedSequences([])).toMatchObject({ rows: 0, tokens: 0, maxTokens: 0, singleRows: 0 });
});

test.each([
  ['a negative count', { rows: -1 }, 'ERR_ARGUMENT', /rows must be a whole number/],
  ['half a token', { tokens: 3.5 }, 'ERR_ARGUMENT', /tokens must be a whole number/],
  ['more singles than rows', { singleRows: 3 }, 'ERR_ARGUMENT', /singleRows must be at most rows = 2, got 3/],
  ['a longest one over the total', { maxTokens: 5 }, 'ERR_ARGUMENT', /maxTokens must be at most tokens = 4, got 5/],
  ['too few offsets', { offsets: ints([0, 4]) }, 'ERR_SHAPE', /offsets must be \[N \+ 1\] = \[3\], got \[2\]/],
  ['too many positions', { positions: ints([0, 0, 0]) }, 'ERR_SHAPE', /positions must be \[N\] = \[2\], got \[3\]/],
  [
    'slots of another dtype',
    { readSlots: Tensor.zeros({ dtype: 'float32', shape: [2] }) },
    'ERR_DTYPE',
    /readSlots must be int32/,
  ],
])('refuses %s', (_, change, code, message) => {
  const make = () => new Sequences({ ...valid(), ...(change as object) });
  expect(make).toThrow(LinattnError);
  expect(make).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  expect(new Sequences(valid()).rows).toBe(2);
});

describe('sequences', () => {
  test('divides tokens into any number of sequences, as long as int32 counts the tokens', () => {
    using many = sequences(Array.from({ length: 300_000 }, () => 2));
    expect(many).toMatchObject({ rows: 300_000, tokens: 600_000, maxTokens: 2, singleRows: 0 });
    expect(() => sequences([2 ** 30, 2 ** 30])).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/a sum below 2147483648/) }),
    );
  });

  test('gives every sequence the slot of its number, at position 0', async () => {
    using packed = sequences([2, 1]);
    expect(packed).toMatchObject({ rows: 2, tokens: 3, maxTokens: 2, singleRows: 0 });
    for (const tensor of [packed.readSlots, packed.writeSlots])
      expect(await tensor.read()).toEqual(Int32Array.of(0, 1));
    expect(await packed.positions.read()).toEqual(Int32Array.of(0, 0));
  });

  test('lets states be forked and dropped, and frees its tensors', () => {
    const packed = sequences([1, 1], { readSlots: [3, 3], writeSlots: [4, -1], positions: [9, 9] });
    packed.dispose();
    packed.dispose();
    expect(() => packed.offsets.live()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });

  test.each([
    ['a negative length', [-1], {}, 'ERR_ARGUMENT', /lengths\[0\] must be a whole number from 0, got -1/],
    [
      'half a slot',
      [1],
      { readSlots: [0.5] },
      'ERR_ARGUMENT',
      /readSlots\[0\] must be a whole number from -1, got 0.5/,
    ],
    ['a slot below -1', [1], { writeSlots: [-2] }, 'ERR_ARGUMENT', /writeSlots\[0\]/],
    ['a negative position', [1], { positions: [-1] }, 'ERR_ARGUMENT', /positions\[0\] must be a whole number from 0/],
    ['too few slots', [1, 1], { readSlots: [0] }, 'ERR_SHAPE', /readSlots must have N = 2 values, got 1/],
    ['a slot written twice', [1, 1], { writeSlots: [5, 5] }, 'ERR_ARGUMENT', /slot 5 is written twice/],
    ['a slot that another writes', [1, 1], { readSlots: [1, 1] }, 'ERR_ARGUMENT', /slot 1 is written by sequence 1/],
  ])('refuses %s', (_, lengths, options, code, message) => {
    expect(() => sequences(lengths, options)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });
});
