import { layerNorm, layerNormReference } from '../../lib/ops/layer-norm';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';

type Case = [
  shape: number[],
  weights: number,
  options: { eps: number; groupSize?: number; bias?: boolean; mean?: number },
];
const cases: Case[] = [
  [[0, 64], 64, { eps: 1e-5 }],
  [[2, 1], 1, { eps: 1e-5, bias: true }],
  [[7, 63], 63, { eps: 1e-5 }],
  [[5, 64], 64, { eps: 1e-5, bias: true }],
  [[3, 65], 65, { eps: 1e-5, bias: true }],
  [[30, 1024], 1024, { eps: 1e-5, bias: true }],
  [[2, 5003], 5003, { eps: 1e-5 }],
  [[2, 129], 129, { eps: 1e-5, bias: true, mean: 30 }],
  [[2, 2000], 2000, { eps: 1e-5, mean: 3000 }],
  [[5, 12 * 64], 12 * 64, { eps: 64e-5, bias: true, groupSize: 64 }],
  [[5, 3, 17], 17, { eps: 1e-5, bias: true }],
  [[5, 3, 17], 51, { eps: 1e-5, bias: true }],
];

describe.each(floats)('%s', (dtype) => {
  test.each(cases)('layerNorm %j, weight [%i], %j', async (shape, weights, { bias: biased, mean = 0, ...options }) => {
    const { normal } = seeded(weights);
    const x = normal(shape);
    x.data.forEach((_, i) => {
      x.data[i]! += mean;
    });
    const weight = rounded(normal([weights]), 'float32');
    const bias = biased ? rounded(normal([weights]), 'float32') : undefined;
    const given = bias && { bias: tensorOf(bias, 'float32') };
    const out = layerNorm({ x: spread(x, dtype, 3), weight: tensorOf(weight, 'float32'), ...given, ...options });
    const exact = layerNormReference(rounded(x, dtype), weight, bias, options.eps, options.groupSize);
    expectClose(await readNd(out), exact, dtype);
  });
});

test('a row is the same whatever its company, and twice the same', async () => {
  const { normal } = seeded(5);
  const x = normal([70, 777]);
  const weight = tensorOf(normal([777]), 'float32');
  const run = async (a: typeof x) => (await readNd(layerNorm({ x: tensorOf(a, 'float32'), weight, eps: 1e-5 }))).data;
  const all = await run(x);
  expect(await run(x)).toEqual(all);
  for (const [begin, end] of [
    [0, 1],
    [33, 70],
    [69, 70],
  ] as const) {
    expect(await run(rowsOf(x, begin, end))).toEqual(all.slice(begin * 777, end * 777));
  }
});

const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
test.each([
  ['ERR_SHAPE', { weight: zeros([4]) }],
  ['ERR_SHAPE', { bias: zeros([7]) }],
  ['ERR_SHAPE', { x: zeros([8]) }],
  ['ERR_ARGUMENT', { eps: -1 }],
  ['ERR_ARGUMENT', { groupSize: 5 }],
])('%s %#', (code, change) => {
  const call = () => layerNorm({ x: zeros([2, 8]), weight: zeros([8]), eps: 0, ...change });
  expect(errorOf(call)).toMatchObject({ code, op: 'layerNorm' });
});

test('ERR_DTYPE', () => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [2, 8] });
  const ints = Tensor.zeros({ dtype: 'int32', shape: [8] }) as never;
  const weight = Tensor.zeros({ dtype: 'float32', shape: [8] });
  expect(errorOf(() => layerNorm({ x, weight: ints, eps: 0 }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => layerNorm({ x, weight, bias: ints, eps: 0 }))).toMatchObject({ code: 'ERR_DTYPE' });
});
