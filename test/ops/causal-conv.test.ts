// causalConv against float64, and its laws: no bit depends on where a sequence is cut or on what is beside it.
import * as fc from 'fast-check';
import { type CausalConv, causalConv, causalConvReference } from '../../lib/ops/causal-conv';
import { l2NormReference } from '../../lib/ops/l2-norm';
import { type NdArray, nd } from '../../lib/ops/reference';
import { type SequenceOptions, sequences } from '../../lib/ops/sequences';
import { setThreads } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { bitsOf } from '../support/linear-attention';

const dtypes = ['float32', 'bfloat16', 'float16'] as const;
type FloatType = (typeof dtypes)[number];

function makeCase(T: number, C: number, W: number, slots: number, dtype: FloatType = 'float32', filters = 1) {
  const random = seeded(T * 31 + C * 7 + W);
  return {
    x: rounded(random.normal([T, C]), dtype),
    weight: rounded(random.normal([filters * C, W]), 'float32'),
    bias: rounded(random.normal([filters * C]), 'float32'),
    state: rounded(random.normal([slots, C, W - 1]), dtype),
  };
}

const part = (array: NdArray, row: number, count = 1): NdArray => {
  const size = array.shape.slice(1).reduce((product, dim) => product * dim, 1);
  return nd([count, ...array.shape.slice(1)], array.data.subarray(row * size, (row + count) * size));
};

const window = (state: NdArray, slot: number): NdArray => ({ ...part(state, slot), shape: state.shape.slice(1) });

describe.each(dtypes)('%s', (dtype) => {
  test.each([
    [[1], 6, 4],
    [[5, 1, 0, 2], 17, 4],
    [[3, 2], 64, 2],
    [[7], 600, 3],
    [[4, 1], 63, 1],
    [[2, 9], 33, 8],
    [[5, 1, 0, 2], 520, 2, 6],
    [[3, 70], 17, 3, 2],
  ])('lengths %j, %i channels, %i taps', async (lengths, C, W, filters = 1) => {
    const T = lengths.reduce((a, b) => a + b, 0);
    const N = lengths.length;
    const c = makeCase(T, C, W, 2 * N, dtype, filters);
    const readSlots = lengths.map((_, n) => (n === 1 ? -1 : n));
    const writeSlots = lengths.map((_, n) => n + N);
    for (const silu of [false, true]) {
      const state = tensorOf(c.state, 'float32');
      const out = causalConv({
        x: tensorOf(c.x, dtype),
        weight: tensorOf(c.weight, 'float32'),
        bias: silu ? tensorOf(c.bias, 'float32') : undefined,
        state,
        sequences: sequences(lengths, { readSlots, writeSlots }),
        activation: silu ? 'silu' : undefined,
      });
      const [made, states] = [await readNd(out), await readNd(state)];
      let at = 0;
      lengths.forEach((length, n) => {
        const exact = causalConvReference({
          x: part(c.x, at, length),
          weight: c.weight,
          bias: silu ? c.bias : undefined,
          state: readSlots[n]! < 0 ? undefined : window(c.state, n),
          silu,
        });
        const limit = 2 * relativeError(rounded(exact.out, dtype), exact.out) + 4 * ulp[dtype];
        expect(relativeError(part(made, at, length), exact.out)).toBeLessThanOrEqual(limit);
        expect(window(states, writeSlots[n]!).data).toEqual(exact.state.data);
        expect(window(states, n).data).toEqual(window(c.state, n).data); // what is only read stays
        at += length;
      });
    }
  });
});

// 64 and 128 are made with the convolution on a GPU, the others after it.
test.each([
  [4, 128],
  [4, 64],
  [3, 64],
  [2, 24],
])('the first %i heads of %i channels to length 1', async (heads, width) => {
  const lengths = [5, 1, 70];
  const C = heads * width + 72;
  const T = 76;
  for (const dtype of dtypes) {
    const c = makeCase(T, C, 4, 1, dtype);
    const input = { x: tensorOf(c.x, dtype), weight: tensorOf(c.weight, 'float32') };
    const l2Norm = { heads, width, eps: 1e-6 };
    const out = causalConv({ ...input, sequences: sequences(lengths), activation: 'silu', l2Norm });
    const made = await readNd(out);
    let at = 0;
    for (const length of lengths) {
      const { out: all } = causalConvReference({ x: part(c.x, at, length), weight: c.weight, silu: true });
      const columns = (from: number, to: number, of: NdArray) =>
        nd(
          [length, 1, to - from],
          Float64Array.from({ length: length * (to - from) }, (_, i) => {
            return of.data[Math.floor(i / (to - from)) * C + from + (i % (to - from))]!;
          }),
        );
      const byHead = (x: NdArray) => nd([length, heads, width], x.data);
      const exact = l2NormReference(byHead(columns(0, heads * width, all)), 1e-6);
      const limit = 2 * relativeError(rounded(exact, dtype), exact) + 4 * ulp[dtype];
      const got = part(made, at, length);
      // Where the normalisation follows the convolution, it takes the outputs as they were rounded.
      expect(relativeError(byHead(columns(0, heads * width, got)), exact)).toBeLessThanOrEqual(2 * limit);
      const rest = columns(heads * width, C, got);
      expect(relativeError(rest, columns(heads * width, C, all))).toBeLessThanOrEqual(limit);
      at += length;
    }
  }
});

function runAll(c: ReturnType<typeof makeCase>, lengths: readonly number[], options?: SequenceOptions, from = 0) {
  const T = lengths.reduce((a, b) => a + b, 0);
  const state = tensorOf(c.state, 'float32');
  const run = (x: NdArray, lens: readonly number[], opts?: SequenceOptions) =>
    causalConv({
      x: tensorOf(x, 'float32'),
      weight: tensorOf(c.weight, 'float32'),
      bias: tensorOf(c.bias, 'float32'),
      state,
      sequences: sequences(lens, opts),
      activation: 'silu',
    });
  return { state, run, out: run(part(c.x, from, T), lengths, options) };
}

test('law: any split of a sequence gives the bits of the whole', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 6 }),
      async (T, W, cuts) => {
        const c = makeCase(T, 19, W, 1);
        const whole = runAll(c, [T]);
        const pieces = runAll(c, []);
        const edges = [0, ...cuts.map((cut) => Math.min(cut, T)), T].sort((a, b) => a - b);
        const outs: Tensor[] = [];
        for (let i = 1; i < edges.length; i++) {
          const length = edges[i]! - edges[i - 1]!;
          outs.push(pieces.run(part(c.x, edges[i - 1]!, length), [length]));
        }
        const expected = await bitsOf([whole.out, whole.state]);
        expect((await bitsOf([...outs, pieces.state])).equals(expected)).toBe(true);
      },
    ),
    { numRuns: 40 },
  );
});

test('law: company in the batch and the number of threads change no bit', async () => {
  const lengths = [3, 1, 8];
  const c = makeCase(12, 1100, 4, 3);
  const together = runAll(c, lengths);
  const bits = await bitsOf([together.out, together.state]);
  let at = 0;
  const alone = runAll(c, []);
  const outs = lengths.map((length, n) => {
    const out = alone.run(part(c.x, at, length), [length], { readSlots: [n], writeSlots: [n] });
    at += length;
    return out;
  });
  expect((await bitsOf([...outs, alone.state])).equals(bits)).toBe(true);
  for (const threads of [1, 2, 3]) {
    setThreads(threads);
    const again = runAll(c, lengths);
    expect((await bitsOf([again.out, again.state])).equals(bits)).toBe(true);
  }
});

test('without state a sequence starts from zeros; x and state may be strided', async () => {
  const c = makeCase(6, 24, 4, 2);
  const wide = tensorOf(
    nd(
      [6, 30],
      [...Array(180).keys()].map((i) => c.x.data[Math.floor(i / 30) * 24 + (i % 30)] ?? 9),
    ),
    'float32',
  );
  const pool = Tensor.zeros({ dtype: 'float32', shape: [3, 100] });
  const common = {
    weight: tensorOf(c.weight, 'float32'),
    sequences: sequences([6], { readSlots: [-1], writeSlots: [1] }),
  };
  const state = pool.view([3, 24, 3], 10, 100);
  const strided = causalConv({ x: wide.view([6, 24], 0, 30), state, ...common });
  const plain = causalConv({ x: tensorOf(await readNd(wide.view([6, 24], 0, 30)), 'float32'), ...common });
  expect((await bitsOf([strided])).equals(await bitsOf([plain]))).toBe(true);
  const held = await readNd(pool);
  expect(held.data.slice(0, 110).every((x) => x === 0)).toBe(true);
  expect(held.data.slice(110, 182).some((x) => x !== 0)).toBe(true);
  expect(held.data.slice(182).every((x) => x === 0)).toBe(true);
});

describe('refuses', () => {
  const tensor = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const valid = () => ({
    x: tensor([2, 8]),
    weight: tensor([8, 4]),
    state: tensor([2, 8, 3]),
    sequences: sequences([2]),
  });
  test.each([
    ['x of rank 1', { x: tensor([8]) }, 'ERR_SHAPE', /x must be \[T, C\]/],
    ['whole numbers', { x: Tensor.zeros({ dtype: 'int32', shape: [2, 8] }) }, 'ERR_DTYPE', /x must be float32 or/],
    ['other weights', { weight: tensor([9, 4]) }, 'ERR_SHAPE', /weight must be \[C, W\] = \[8, 4\], got \[9, 4\]/],
    ['no taps', { weight: tensor([8, 0]) }, 'ERR_ARGUMENT', /W of 1 or more/],
    ['another bias', { bias: tensor([7]) }, 'ERR_SHAPE', /bias must be \[C\] = \[8\], got \[7\]/],
    ['another state', { state: tensor([2, 8, 4]) }, 'ERR_SHAPE', /state must be \[slots, C, W - 1\] = \[2, 8, 3\]/],
    ['another T', { sequences: sequences([3]) }, 'ERR_ARGUMENT', /sequences must have the T = 2 tokens/],
    ['an activation', { activation: 'gelu' as 'silu' }, 'ERR_ARGUMENT', /activation must be 'silu', got 'gelu'/],
  ])('%s', (_, change, code, message) => {
    expect(() => causalConv({ ...valid(), ...change } as CausalConv<Tensor>)).toThrow(
      expect.objectContaining({ code, op: 'causalConv', message: expect.stringMatching(message) }),
    );
  });

  test('slots that it does not have, when it runs', async () => {
    const out = causalConv({ ...valid(), sequences: sequences([2], { readSlots: [2], writeSlots: [-1] }) });
    await expect(out.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'causalConv' });
  });
});
