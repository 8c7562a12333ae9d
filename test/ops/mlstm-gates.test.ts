// mlstmGates against its float64 recurrence, its laws, and the mLSTM that it makes of linearAttention.
import { add } from '../../lib/ops/add';
import { divide } from '../../lib/ops/divide';
import { linearAttention } from '../../lib/ops/linear-attention';
import { type MlstmGatesOptions, mlstmGates, mlstmGatesReference } from '../../lib/ops/mlstm-gates';
import { type NdArray, nd } from '../../lib/ops/reference';
import { sequences } from '../../lib/ops/sequences';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { errorOf, floats, rowsOf, spread } from '../support/close';
import { bitsOf } from '../support/linear-attention';

const float32 = (array: NdArray) => tensorOf(array, 'float32');
/** Without the -Infinity of first tokens, whose place is told apart. */
const finite = (array: NdArray): NdArray => ({ ...array, data: array.data.map((x) => (x === -Infinity ? 0 : x)) });
const openings = (array: NdArray): number[] => [...array.data.keys()].filter((i) => array.data[i] === -Infinity);

describe.each(floats)('%s', (dtype) => {
  test.each<[string, MlstmGatesOptions]>([
    ['as it is', {}],
    ['capped and scaled', { cap: 15, scale: 0.25 }],
    ['exponential forget gates', { forget: 'exponential' }],
    ['exponential and capped', { forget: 'exponential', cap: 2 }],
  ])('%s', async (_, options) => {
    for (const [lengths, H, std] of [
      [[0], 2, 1],
      [[1], 1, 3],
      [[5, 0, 70], 3, 3],
      [[64, 33], 17, 12],
    ] as const) {
      const T = lengths.reduce<number>((sum, length) => sum + length, 0);
      const random = seeded(T + H);
      const x = rounded(random.normal([T, 2 * H], std), dtype);
      const bias = rounded(random.normal([2 * H]), 'float32');
      const made = mlstmGates({
        x: spread(x, dtype, 3),
        bias: float32(bias),
        sequences: sequences(lengths),
        ...options,
      });
      const exact = mlstmGatesReference(x, bias, lengths, options);
      const simple = mlstmGatesReference(x, bias, lengths, options, Math.fround);
      for (const name of ['g', 'keyScale', 'floor'] as const) {
        const ours = await readNd(made[name]);
        expect(openings(ours)).toEqual(openings(exact[name]));
        const limit = 2 * relativeError(finite(simple[name]), finite(exact[name])) + 4 * ulp.float32;
        expect(relativeError(finite(ours), finite(exact[name]))).toBeLessThanOrEqual(limit);
        expect(ours.data.every((value) => (name === 'g' ? value <= 0 : value >= 0))).toBe(true);
      }
    }
  });
});

const [T, H, K, V] = [75, 2, 16, 24];
/** h of an mLSTM, and its state, of tokens [from, from + count). */
interface Tokens {
  x: NdArray;
  q: NdArray;
  k: NdArray;
  v: NdArray;
}

const bias = rounded(seeded(4).normal([2 * H]), 'float32');
const options = { scale: K ** -0.5 };

const pools = (slots: number) => ({
  state: Tensor.zeros({ dtype: 'float32', shape: [slots, H, V, K] }),
  keySum: Tensor.zeros({ dtype: 'float32', shape: [slots, H, K] }),
  maximum: Tensor.zeros({ dtype: 'float32', shape: [slots, H] }),
});

function mlstm(
  { x, q, k, v }: Tokens,
  lengths: readonly number[],
  read: readonly number[],
  { maximum, ...pool }: ReturnType<typeof pools>,
  more: MlstmGatesOptions = {},
): Tensor<'float32'> {
  const tokens = sequences(lengths, { readSlots: read });
  const made = mlstmGates({ x: float32(x), bias: float32(bias), maximum, sequences: tokens, ...options, ...more });
  const { out, denominator } = linearAttention({
    q: float32(q),
    k: add({ b: float32(k), scale: made.keyScale }),
    v: float32(v),
    rule: { name: 'additive' },
    decay: { per: 'token', g: made.g },
    denominator: true,
    ...pool,
    sequences: tokens,
  });
  return divide({ x: out, divisor: denominator!, floor: made.floor });
}

const random = seeded(9);
const ordinary: Tokens = {
  x: rounded(random.normal([T, 2 * H], 3), 'float32'),
  q: rounded(random.normal([T, H, K]), 'float32'),
  k: rounded(random.normal([T, H, K]), 'float32'),
  v: rounded(random.normal([T, H, V]), 'float32'),
};
/** Keys near one direction, of growing size. */
const correlated = {
  ...ordinary,
  k: rounded(
    nd(
      [T, H, K],
      ordinary.k.data.map((x, i) => (0.1 * x + Math.sin(i % K)) * (1 + i / ordinary.k.data.length)),
    ),
    'float32',
  ),
};
/** Input gates from e^-150 to e^150: neither they nor their inverses are float32. */
const extreme = {
  ...ordinary,
  x: rounded(
    nd(
      [T, 2 * H],
      ordinary.x.data.map((x, i) => (i % (2 * H) < H ? 150 * Math.sin(i * i) : 4 * x)),
    ),
    'float32',
  ),
};

/** The mLSTM as the paper defines it, without a stabiliser: its gates fit float64. `stored` rounds every step. */
function definition(
  { x, q, k, v }: Tokens,
  more: MlstmGatesOptions,
  stored: (value: number) => number = (value) => value,
): NdArray {
  const gates = mlstmGatesReference(x, bias, [T], { ...options, ...more }, stored);
  const out = nd([T, H, V]);
  for (let h = 0; h < H; h++) {
    const C = Array.from({ length: V }, () => new Float64Array(K));
    const n = new Float64Array(K);
    for (let t = 0; t < T; t++) {
      const at = t * H + h;
      const f = t === 0 ? 0 : stored(Math.exp(gates.g.data[at]!));
      const key = k.data.slice(at * K, (at + 1) * K).map((value) => stored(value * gates.keyScale.data[at]!));
      const dot = (row: Float64Array): number =>
        row.reduce((sum, value, c) => stored(sum + stored(value * q.data[at * K + c]!)), 0);
      const step = (row: Float64Array, value: number): void =>
        row.forEach((old, c) => {
          row[c] = stored(stored(old * f) + stored(key[c]! * value));
        });
      step(n, 1);
      const below = Math.max(Math.abs(dot(n)), gates.floor.data[at]!);
      for (const [r, row] of C.entries()) {
        step(row, v.data[at * V + r]!);
        out.data[at * V + r] = stored(dot(row) / below);
      }
    }
  }
  return out;
}

/** The same from the sum over all tokens, each with its whole gate: nothing is shared with the recurrence. */
function quadratic({ x, q, k, v }: Tokens, { cap, forget }: MlstmGatesOptions): NdArray {
  const capped = (value: number): number => (cap === undefined ? value : cap * Math.tanh(value / cap));
  const gate = (t: number, column: number): number => capped(x.data[t * 2 * H + column]! + bias.data[column]!);
  const out = nd([T, H, V]);
  for (let i = 0; i < T; i++) {
    for (let h = 0; h < H; h++) {
      let kept = 0;
      let below = 0;
      const row = out.data.subarray((i * H + h) * V, (i * H + h + 1) * V);
      for (let j = i; j >= 0; j--) {
        let weight = Math.exp(kept + gate(j, h)) * K ** -0.5;
        let product = 0;
        for (let c = 0; c < K; c++) product += q.data[(i * H + h) * K + c]! * k.data[(j * H + h) * K + c]!;
        weight *= product;
        below += weight;
        for (let c = 0; c < V; c++) row[c]! += weight * v.data[(j * H + h) * V + c]!;
        const f = gate(j, H + h);
        kept += forget === 'exponential' ? f : -Math.log1p(Math.exp(-f));
      }
      row.set(row.map((value) => value / Math.max(Math.abs(below), 1)));
    }
  }
  return out;
}

describe('an mLSTM', () => {
  test.each<[string, Tokens, MlstmGatesOptions]>([
    ['ordinary', ordinary, {}],
    ['ordinary, capped', ordinary, { cap: 2 }],
    ['ordinary, exponential forget gates', ordinary, { forget: 'exponential', cap: 2 }],
    ['correlated keys', correlated, {}],
    ['extreme gates', extreme, {}],
  ])('%s: is its definition', async (_, x, more) => {
    const exact = quadratic(x, more);
    expect(relativeError(definition(x, more), exact)).toBeLessThanOrEqual(1e-11);
    const limit = 2 * relativeError(definition(x, more, Math.fround), exact) + 4 * ulp.float32;
    const out = await readNd(mlstm(x, [T], [-1], pools(1), more));
    expect(relativeError(out, exact)).toBeLessThanOrEqual(limit);
  });

  const cut = (x: Tokens, from: number, to: number): Tokens => ({
    x: rowsOf(x.x, from, to),
    q: rowsOf(x.q, from, to),
    k: rowsOf(x.k, from, to),
    v: rowsOf(x.v, from, to),
  });

  test('law: split, step, batch and save give the same bits', async () => {
    const whole = pools(1);
    const wanted = await bitsOf([mlstm(ordinary, [T], [-1], whole), ...Object.values(whole)]);
    for (const edges of [[1, 20, 64], [...Array(T).keys()].slice(1)]) {
      const pool = pools(1);
      const outs = [0, ...edges].map((from, i) => {
        const to = [...edges, T][i]!;
        return mlstm(cut(ordinary, from, to), [to - from], [i ? 0 : -1], pool);
      });
      expect((await bitsOf([...outs, ...Object.values(pool)])).equals(wanted)).toBe(true);
    }
    const together = await bitsOf([mlstm(ordinary, [30, 45], [-1, -1], pools(2))]);
    const alone = [
      mlstm(cut(ordinary, 0, 30), [30], [-1], pools(1)),
      mlstm(cut(ordinary, 30, T), [45], [-1], pools(1)),
    ];
    expect((await bitsOf(alone)).equals(together)).toBe(true);

    const first = pools(1);
    const before = mlstm(cut(ordinary, 0, 40), [40], [-1], first);
    const saved = await Promise.all(Object.values(first).map((tensor) => tensor.read()));
    const second = pools(1);
    Object.values(second).forEach((tensor, i) => {
      tensor.write(saved[i]!);
    });
    const after = mlstm(cut(ordinary, 40, T), [35], [0], second);
    expect((await bitsOf([before, after, ...Object.values(second)])).equals(wanted)).toBe(true);
  });
});

test('slots that are not there', async () => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [1, 2] });
  const zeros = Tensor.zeros({ dtype: 'float32', shape: [2] });
  const maximum = Tensor.zeros({ dtype: 'float32', shape: [2, 1] });
  const { g } = mlstmGates({ x, bias: zeros, maximum, sequences: sequences([1], { readSlots: [2], writeSlots: [0] }) });
  await expect(g.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});

test('errors', () => {
  const of = (...shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const good = { x: of(3, 8), bias: of(8), sequences: sequences([3]) };
  const call = (change: object) => errorOf(() => mlstmGates({ ...good, ...change }));
  expect(call({ x: of(3, 7) })).toMatchObject({ code: 'ERR_SHAPE', op: 'mlstmGates' });
  expect(call({ x: of(2, 8) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ bias: of(4) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ maximum: of(2, 8) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ x: Tensor.zeros({ dtype: 'int32', shape: [3, 8] }) })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(call({ cap: 0 })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(call({ scale: Number.NaN })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(call({ forget: 'tanh' })).toMatchObject({ code: 'ERR_ARGUMENT' });
});
