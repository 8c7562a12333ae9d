// The window and linear hybrid of LoLCATs against its quadratic form in float64, and its laws.
import type { Hidden } from '../../lib/layers/layer';
import {
  WindowedLinearAttention,
  type WindowedLinearAttentionOptions,
  type WindowedLinearSequence,
} from '../../lib/layers/windowed-linear-attention';
import { FavorProjection } from '../../lib/ops/favor-projection';
import { type FeatureMapOptions, featureMapReference } from '../../lib/ops/feature-map';
import { type NdArray, nd } from '../../lib/ops/reference';
import type { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { rowsOf } from '../support/close';
import { expectSameTensors } from '../support/device';

const [T, Hq, Hkv, D] = [300, 4, 2, 16];
const windowFactors = [0, -1.5, 2, 0.3];

interface Tokens {
  q: NdArray;
  k: NdArray;
  v: NdArray;
}

const random = seeded(11);
const draw = (heads: number, std: number) => rounded(random.normal([T, heads, D], std), 'float32');
const plain: Tokens = { q: draw(Hq, 1), k: draw(Hkv, 1), v: draw(Hkv, 1) };
const keys = (change: (value: number, i: number) => number): Tokens => ({
  ...plain,
  k: rounded(nd(plain.k.shape, plain.k.data.map(change)), 'float32'),
});
/** Near one direction, of growing size. */
const correlated = keys((x, i) => (0.1 * x + Math.sin(i % D)) * (1 + i / plain.k.data.length));
const large = keys((x) => 12 * x);
const distances = 9;
const biases = rounded(random.normal([Hq, distances], 1.5), 'float32');
const relativeBias = tensorOf(biases, 'float32') as Tensor<'float32'>;

/** The first tokens: what the oracle, whose time is quadratic, is asked for. */
const short = ({ q, k, v }: Tokens): Tokens => ({ q: rowsOf(q, 0, 80), k: rowsOf(k, 0, 80), v: rowsOf(v, 0, 80) });

/** The masks and sums of lolcats' hybrid_attention_quadratic; `round` of every step makes it plain float32. */
function quadratic(
  { q, k, v }: Tokens,
  { window, sinkTokens = 0, affine = false, featureMap, relativeBias }: WindowedLinearAttentionOptions,
  round: (value: number) => number = (value) => value,
): NdArray {
  const features = (x: NdArray): NdArray => {
    const out = featureMapReference(x, featureMap as FeatureMapOptions);
    return nd(out.shape, out.data.map(round));
  };
  const [a, b] = [features(q), features(k)];
  const F = a.shape[2]!;
  const out = nd(q.shape);
  const product = (x: NdArray, y: NdArray, i: number, j: number, width: number): number => {
    let sum = 0;
    for (let c = 0; c < width; c++) sum = round(sum + round(x.data[i * width + c]! * y.data[j * width + c]!));
    return sum;
  };
  for (let i = 0; i < q.shape[0]!; i++) {
    for (let h = 0; h < Hq; h++) {
      const own = i * Hq + h;
      const other = (j: number): number => j * Hkv + Math.floor((h * Hkv) / Hq);
      const gamma = round(1 / (1 + Math.exp(-windowFactors[h]!)));
      const first = Math.max(0, i - window + 1);
      const bias = (apart: number): number =>
        relativeBias === undefined ? 0 : biases.data[h * distances + Math.min(apart, distances - 1)]!;
      const isNear = (j: number): boolean => j >= first || j < sinkTokens;
      const scores = Array.from({ length: i + 1 }, (_, j) =>
        isNear(j) ? round(round(product(q, k, own, other(j), D) * D ** -0.5) + bias(i - j)) : Number.NEGATIVE_INFINITY,
      );
      const top = Math.max(...scores);
      let total = 0;
      const row = out.data.subarray(own * D, (own + 1) * D);
      for (let j = 0; j <= i; j++) {
        const weight = isNear(j)
          ? round(gamma * round(Math.exp(scores[j]! - top)))
          : round((affine ? 1 - gamma : 1) * product(a, b, own, other(j), F));
        total = round(total + weight);
        for (let c = 0; c < D; c++) row[c] = round(row[c]! + round(weight * v.data[other(j) * D + c]!));
      }
      row.set(row.map((value) => round(value / total)));
    }
  }
  return out;
}

const run = (
  layer: WindowedLinearAttention,
  x: Tokens,
  sequence: WindowedLinearSequence,
  from = 0,
  to = x.q.shape[0]!,
  dtype: 'float32' | 'bfloat16' = 'float32',
) => {
  const [q, k, v] = [x.q, x.k, x.v].map((array) => tensorOf(rowsOf(array, from, to), dtype));
  return layer.forward({ q: q!, k: k!, v: v! }, sequence);
};
const tensorsOf = ({ pages, keys: late, values, state, keySum }: WindowedLinearSequence) => [
  pages,
  late,
  values,
  state,
  keySum,
];

describe.each<[string, Omit<WindowedLinearAttentionOptions, 'windowFactors'>]>([
  ['Hedgehog, a window of 64', { window: 64, featureMap: { name: 'hedgehogSplit', floor: 1e-12 } }],
  ['affine factors, a window of 7', { window: 7, affine: true, featureMap: { name: 'hedgehogSplit' } }],
  ['elu + 1, a window of 1', { window: 1, featureMap: { name: 'elu1' } }],
  ['a learned bias, a window of 12', { window: 12, featureMap: { name: 'hedgehogSplit' }, relativeBias }],
  ['sinks, a window of 12', { window: 12, sinkTokens: 5, featureMap: { name: 'hedgehogSplit' } }],
  ['many sinks and a bias', { window: 6, sinkTokens: 70, featureMap: { name: 'elu1' }, relativeBias }],
  ['a window beyond the text is softmax', { window: 1000, featureMap: { name: 'elu1' } }],
])('%s', (_, sizes) => {
  const options = { ...sizes, windowFactors };
  const layer = new WindowedLinearAttention(options);
  const create = () => layer.createSequence({ heads: Hkv, width: D });

  test.each([
    ['plain', short(plain)],
    ['correlated', short(correlated)],
    ['large', short(large)],
  ])('is the quadratic form, %s keys', async (_name, x) => {
    const exact = quadratic(x, options);
    const limit = 2 * relativeError(quadratic(x, options, Math.fround), exact) + 4 * ulp.float32;
    using sequence = create();
    expect(relativeError(await readNd(run(layer, x, sequence)), exact)).toBeLessThanOrEqual(limit);
  });

  test('law: any split gives the same bits, also token by token', async () => {
    using whole = create();
    const wanted = [run(layer, plain, whole), ...tensorsOf(whole)];
    for (const edges of [[3, 64, 65, 130, 299], [...Array(T).keys()].slice(1)]) {
      using sequence = create();
      const outs = [0, ...edges].map((from, i) => run(layer, plain, sequence, from, [...edges, T][i]!));
      await expectSameTensors([...outs, ...tensorsOf(sequence)], wanted, 1e-5);
    }
  });
});

test('a sum of weights below zero divides as it is', async () => {
  const options = { window: 1, featureMap: { name: 'identity' }, windowFactors } as const;
  const { q, k, v } = short(plain);
  const sized = (x: NdArray, sign: number) =>
    rounded(
      nd(
        x.shape,
        x.data.map((value) => sign * Math.abs(value)),
      ),
      'float32',
    );
  const opposed = { q: sized(q, 1), k: sized(k, -1), v };
  const exact = quadratic(opposed, options);
  const limit = 2 * relativeError(quadratic(opposed, options, Math.fround), exact) + 4 * ulp.float32;
  const layer = new WindowedLinearAttention(options);
  using sequence = layer.createSequence({ heads: Hkv, width: D });
  expect(relativeError(await readNd(run(layer, opposed, sequence)), exact)).toBeLessThanOrEqual(limit);
});

describe('of a window of 20', () => {
  const options = { window: 20, featureMap: { name: 'hedgehogSplit' }, windowFactors } as const;
  const layer = new WindowedLinearAttention(options);
  const create = () => layer.createSequence({ heads: Hkv, width: D });

  test('in bfloat16', async () => {
    const { q, k, v } = short(plain);
    const held = { q: rounded(q, 'bfloat16'), k: rounded(k, 'bfloat16'), v: rounded(v, 'bfloat16') };
    const exact = quadratic(held, options);
    const limit = 2 * relativeError(rounded(exact, 'bfloat16'), exact) + 4 * ulp.bfloat16;
    using sequence = create();
    expect(relativeError(await readNd(run(layer, held, sequence, 0, 80, 'bfloat16')), exact)).toBeLessThanOrEqual(
      limit,
    );
  });

  test('a later token changes no earlier output by a bit', async () => {
    const changed = { ...plain, k: nd(plain.k.shape, plain.k.data) };
    changed.k.data.fill(3, 200 * Hkv * D);
    using first = create();
    using second = create();
    const [one, two] = [await readNd(run(layer, plain, first)), await readNd(run(layer, changed, second))];
    expect(two.data.subarray(0, 200 * Hq * D)).toEqual(one.data.subarray(0, 200 * Hq * D));
    expect(two.data.subarray(200 * Hq * D)).not.toEqual(one.data.subarray(200 * Hq * D));
  });
});

test.each([
  ['a window of 0', { window: 0 }, 'ERR_ARGUMENT', /window must be 1 or more, got 0/],
  ['half a sink', { sinkTokens: 0.5 }, 'ERR_ARGUMENT', /sinkTokens must be a whole number from 0 to 1048576, got 0.5/],
  ['sinks without end', { sinkTokens: 2 ** 31 }, 'ERR_ARGUMENT', /sinkTokens must be a whole number from 0 to/],
  ['no factors', { windowFactors: [] }, 'ERR_ARGUMENT', /a number for each query head, got \[\]/],
  ['a factor that is no number', { windowFactors: [0, Number.NaN] }, 'ERR_ARGUMENT', /got \[0, NaN\]/],
  [
    'FAVOR+',
    { featureMap: { name: 'favor', projection: FavorProjection.draw({ directions: 8, width: D, seed: 0 }) } },
    'ERR_UNSUPPORTED',
    /favor subtracts a maximum of its own/,
  ],
] as const)('refuses %s', (_, change, code, message) => {
  const options = { window: 8, featureMap: { name: 'elu1' }, windowFactors, ...change };
  expect(() => new WindowedLinearAttention(options as unknown as WindowedLinearAttentionOptions)).toThrow(
    expect.objectContaining({ code, message: expect.stringMatching(message) }),
  );
});

test('refuses tokens that do not fit, before any of them is read', async () => {
  const layer = new WindowedLinearAttention({ window: 8, featureMap: { name: 'elu1' }, windowFactors });
  using sequence = layer.createSequence({ heads: Hkv, width: D });
  const zeros = (...shape: number[]) => tensorOf(nd(shape), 'float32') as Hidden;
  const refused = (change: Partial<Record<'q' | 'k' | 'v', Hidden>>, message: RegExp) => {
    const call = { q: zeros(T, Hq, D), k: zeros(T, Hkv, D), v: zeros(T, Hkv, D), ...change };
    expect(() => layer.forward(call, sequence)).toThrow(
      expect.objectContaining({ code: 'ERR_SHAPE', message: expect.stringMatching(message) }),
    );
  };
  refused({ q: zeros(T, 2, D) }, /each of 4 windowFactors, got 2/);
  refused({ q: zeros(T, Hq) }, /q must be \[T, H, D\] = \[300, 4, 16\], got \[300, 4\]/);
  refused({ k: zeros(T + 1, Hkv, D) }, /k must be \[T, H, D\] = \[300, 2, 16\], got \[301, 2, 16\]/);
  refused({ k: zeros(T - 5, Hkv, D), v: zeros(T - 5, Hkv, D) }, /k must be/);
  refused({ v: zeros(T, Hkv, D + 8) }, /v must be/);
  refused({ k: zeros(T, 1, D), v: zeros(T, 1, D) }, /k must be/);
  expect(sequence.length).toBe(0);
  using fresh = layer.createSequence({ heads: Hkv, width: D });
  await expectSameTensors(tensorsOf(sequence), tensorsOf(fresh), 0);
});

test('refuses a sequence of another window, and sizes that are none', () => {
  const sized = (window: number) =>
    new WindowedLinearAttention({ window, featureMap: { name: 'elu1' }, windowFactors });
  using sequence = sized(16).createSequence({ heads: Hkv, width: D });
  const code = 'ERR_ARGUMENT';
  expect(() => run(sized(8), plain, sequence)).toThrow(
    expect.objectContaining({
      code,
      message: expect.stringMatching(/a window of 8 and 0 sinks, got one of a window of 16 and 0 sinks/),
    }),
  );
  const sinking = new WindowedLinearAttention({
    window: 16,
    sinkTokens: 4,
    featureMap: { name: 'elu1' },
    windowFactors,
  });
  expect(() => run(sinking, plain, sequence)).toThrow(
    expect.objectContaining({
      code,
      message: expect.stringMatching(/16 and 4 sinks, got one of a window of 16 and 0 sinks/),
    }),
  );
  for (const heads of [0, 1.5, 2 ** 31, Number.NaN]) {
    expect(() => sized(8).createSequence({ heads, width: D })).toThrow(expect.objectContaining({ code }));
  }
  expect(() => sized(2 ** 31).createSequence({ heads: 1, width: D })).toThrow(expect.objectContaining({ code }));
});
