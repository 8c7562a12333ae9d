import { addReference } from '../../lib/ops/add';
import type { NdArray } from '../../lib/ops/reference';
import { addRmsNorm, type RmsNormOptions, rmsNorm, rmsNormCost, rmsNormReference } from '../../lib/ops/rms-norm';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';

type Case = [shape: number[], weights: number, options: RmsNormOptions & { gated?: boolean; scale?: number }];
const cases: Case[] = [
  [[0, 64], 64, { eps: 1e-6 }],
  [[1, 1], 1, { eps: 1e-6 }],
  [[7, 63], 63, { eps: 1e-6 }],
  [[5, 64], 64, { eps: 1e-6, zeroCentred: true }],
  [[3, 65], 65, { eps: 1e-5, zeroCentred: true }],
  [[2, 1021], 1021, { eps: 1e-6 }],
  [[40, 1024], 1024, { eps: 1e-6, zeroCentred: true }],
  [[2, 8193], 8193, { eps: 1e-6 }],
  [[3, 5, 17], 17, { eps: 1e-6 }],
  [[3, 5, 17], 85, { eps: 1e-6 }],
  [[9, 16, 128], 128, { eps: 1e-6, gated: true }],
  [[9, 3, 128], 128, { eps: 1e-6, gated: true, gateActivation: 'sigmoid' }],
  [[4, 48], 48, { eps: 1e-5, gated: true, gateOrder: 'before' }],
  [[4, 48], 48, { eps: 1e-5, gated: true, gateOrder: 'before', gateActivation: 'sigmoid' }],
  [[6, 4 * 53], 4 * 53, { eps: 1e-5, gated: true, gateOrder: 'before', groupSize: 53 }],
  [[6, 4 * 53], 4 * 53, { eps: 1e-5, gated: true, groupSize: 53 }],
  [[2, 3, 64], 192, { eps: 1e-6, groupSize: 16 }],
  [[3, 33], 33, { eps: 1e-6, scale: 1e-12 }],
  [[3, 33], 33, { eps: 0, scale: 1e15 }],
];

const random = (shape: number[], weights: number, scale = 1) => {
  const { normal } = seeded(shape.length * 1000 + weights);
  return { x: normal(shape, scale), weight: rounded(normal([weights]), 'float32'), gate: normal(shape, 3) };
};

describe.each(floats)('%s', (dtype) => {
  test.each(cases)('rmsNorm %j, weight [%i], %j', async (shape, weights, { gated, scale, ...options }) => {
    if (dtype === 'float16' && scale !== undefined) return; // beyond its range
    const { x, weight, gate } = random(shape, weights, scale);
    const gateTensor = gated ? { gate: spread(gate, dtype, 3) } : {};
    const out = rmsNorm({ x: spread(x, dtype, 5), weight: tensorOf(weight, 'float32'), ...gateTensor, ...options });
    const input = { x: rounded(x, dtype), weight, gate: gated ? rounded(gate, dtype) : undefined };
    expectClose(await readNd(out), rmsNormReference(input, options), dtype);
  });

  test.each([1, 0.22])('addRmsNorm normalises the sum as it is stored, branch times %f', async (branchScale) => {
    const { x, weight, gate: residual } = random([5, 203], 203);
    const options = { eps: 1e-6, zeroCentred: true };
    const { out, sum } = addRmsNorm({
      x: spread(x, dtype, 1),
      residual: spread(residual, dtype, 2),
      weight: tensorOf(weight, 'float32'),
      branchScale,
      ...options,
    });
    const exact = addReference(rounded(residual, dtype), rounded(x, dtype), Math.fround(branchScale));
    const stored = await readNd(sum);
    if (branchScale === 1) expect(stored.data).toEqual(rounded(rounded(exact, 'float32'), dtype).data);
    else expectClose(stored, exact, dtype); // without FMA the product is rounded too
    expectClose(await readNd(out), rmsNormReference({ x: stored, weight }, options), dtype);
  });
});

test('a row is the same whatever its company, and twice the same', async () => {
  const { x, weight, gate } = random([70, 1000], 1000);
  const run = async (a: NdArray, g: NdArray) =>
    (await readNd(rmsNorm({ x: tensorOf(a, 'float32'), weight: w, gate: tensorOf(g, 'float32'), eps: 1e-6 }))).data;
  const w = tensorOf(weight, 'float32');
  const all = await run(x, gate);
  expect(await run(x, gate)).toEqual(all);
  for (const [begin, end] of [
    [0, 1],
    [33, 70],
    [69, 70],
  ] as const) {
    expect(await run(rowsOf(x, begin, end), rowsOf(gate, begin, end))).toEqual(all.slice(begin * 1000, end * 1000));
  }
});

// So many that a GPU takes several groups at a time, which it does not with an eighth of them, or with two rows.
const manySizes: [shape: number[], others: 'residual' | 'gate' | 'none'][] = [
  [[1061, 1024], 'residual'],
  [[2117, 296], 'none'],
  [[531, 16, 128], 'gate'],
];
test.each(manySizes)('%j: a group is the same among many, with %s', async (shape, others) => {
  const { x, weight, gate: other } = random(shape, shape.at(-1)!);
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const run = async (begin: number, end: number): Promise<NdArray[]> => {
      const input = { x: spread(rowsOf(x, begin, end), dtype, 8), weight: tensorOf(weight, 'float32'), eps: 1e-6 };
      if (others === 'none') return [await readNd(rmsNorm(input))];
      const second = spread(rowsOf(other, begin, end), dtype, 16);
      if (others === 'gate') return [await readNd(rmsNorm({ ...input, gate: second }))];
      const { out, sum } = addRmsNorm({ ...input, residual: second });
      return [await readNd(out), await readNd(sum)];
    };
    const rows = shape[0]!;
    const all = await run(0, rows);
    const ends = Array.from({ length: 9 }, (_, i) => Math.floor((i * rows) / 8));
    for (const [begin, end] of [...ends.slice(1).map((end, i) => [ends[i]!, end] as const), [1, 3] as const]) {
      expect(await run(begin, end)).toEqual(all.map((one) => rowsOf(one, begin, end)));
    }
  }
});

describe('errors', () => {
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const x = zeros([2, 8]);
  const weight = zeros([8]);
  const ints = Tensor.zeros({ dtype: 'int32', shape: [2, 8] }) as never;
  test.each([
    ['ERR_SHAPE', () => rmsNorm({ x, weight: zeros([4]), eps: 0 })],
    ['ERR_SHAPE', () => rmsNorm({ x: zeros([8]), weight, eps: 0 })],
    ['ERR_SHAPE', () => rmsNorm({ x: zeros([1, 2, 3]), weight: zeros([5]), eps: 0 })],
    ['ERR_SHAPE', () => rmsNorm({ x, weight, gate: zeros([3, 8]), eps: 0 })],
    ['ERR_SHAPE', () => addRmsNorm({ x, weight, residual: zeros([2, 4]), eps: 0 })],
    ['ERR_DTYPE', () => rmsNorm({ x: ints, weight, eps: 0 })],
    ['ERR_DTYPE', () => rmsNorm({ x, weight: ints, eps: 0 })],
    ['ERR_DTYPE', () => rmsNorm({ x, weight, gate: ints, eps: 0 })],
    ['ERR_ARGUMENT', () => rmsNorm({ x, weight, eps: -1 })],
    ['ERR_ARGUMENT', () => rmsNorm({ x, weight, eps: Number.NaN })],
    ['ERR_ARGUMENT', () => rmsNorm({ x, weight, eps: 0, groupSize: 3 })],
    ['ERR_ARGUMENT', () => rmsNorm({ x, weight, eps: 0, groupSize: 0 })],
    ['ERR_ARGUMENT', () => rmsNorm({ x, weight, eps: 0, gateOrder: 'first' as never })],
    ['ERR_ARGUMENT', () => rmsNorm({ x, weight, eps: 0, gateActivation: 'relu' as never })],
  ])('%s %#', (code, call) => {
    expect(errorOf(call)).toMatchObject({ code, op: 'rmsNorm' });
  });
});

test('cost', () => {
  expect(rmsNormCost(10, 4)).toEqual({ bytes: 80, flops: 60 });
  expect(rmsNormCost(10, 2, { gate: true, residual: true }).bytes).toBe(100);
});
