// groupedMatmul and weightedSum, the products of a mixture of experts, against float64.
import { groupedMatmul, groupedMatmulReference } from '../../lib/ops/grouped-matmul';
import { packWeightReference, weightFrom } from '../../lib/ops/pack-weight';
import { nd } from '../../lib/ops/reference';
import { weightDTypes } from '../../lib/ops/weight';
import { weightedSum, weightedSumReference } from '../../lib/ops/weighted-sum';
import { setThreads } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';

/** T x k experts, of which the tokens of a third of them choose expert 1 alone. */
const idsOf = (T: number, k: number, experts: number) => {
  const random = seeded(T + k);
  return nd(
    [T, k],
    Array.from({ length: T * k }, (_, i) => (i % 3 === 0 ? 1 : random.int(experts))),
  );
};

describe.each(weightDTypes)('%s weights', (dtype) => {
  test.each([
    [0, 2, 4, 64, 32],
    [1, 2, 4, 64, 32],
    [2, 3, 5, 33, 64],
    [7, 1, 3, 513, 96],
    [90, 4, 8, 96, 64],
  ])('T %i, k %i, %i experts, K %i, N %i', async (T, k, experts, K, N) => {
    const { normal } = seeded(T * 7 + K);
    const source = rounded(normal([experts * N, K]), 'float32');
    const ids = idsOf(T, k, experts);
    for (const group of dtype === 'int8' ? [0, 32] : [0]) {
      const weight = weightFrom(tensorOf(source, 'float32'), dtype, { group });
      const values = packWeightReference(rounded(source, dtype), dtype, group);
      for (const xDType of floats) {
        for (const rows of new Set([T, T * k])) {
          const x = rounded(normal([rows, K]), xDType);
          const out = groupedMatmul({ x: spread(x, xDType, 8), ids: tensorOf(ids, 'int32'), weight, experts });
          expect(out).toMatchObject({ shape: [T * k, N], dtype: xDType });
          const taken = dtype === 'bfloat16' ? rounded(x, dtype) : x;
          const exact = groupedMatmulReference(taken, ids, values, experts);
          // Error of a float32 chain of K products, as a random walk of half an ulp a step, and of the stored result.
          const limit = 2 * Math.sqrt(K) * 2 ** -24 + 4 * ulp[xDType];
          expect(relativeError(await readNd(out), exact)).toBeLessThanOrEqual(limit);
        }
      }
      weight.dispose();
    }
  });
});

test('a row has the same bits whatever rows share its expert, on any number of threads', async () => {
  const [T, k, experts, K, N] = [130, 3, 4, 401, 64];
  const x = seeded(1).normal([T, K]);
  const ids = idsOf(T, k, experts);
  const weight = weightFrom(tensorOf(seeded(2).normal([experts * N, K]), 'float32'), 'float32');
  const run = async (begin: number, end: number) => {
    const rows = { x: tensorOf(rowsOf(x, begin, end), 'float32'), ids: tensorOf(rowsOf(ids, begin, end), 'int32') };
    return readNd(groupedMatmul({ ...rows, weight, experts }));
  };
  const whole = await run(0, T);
  for (const [begin, end] of [
    [0, 1],
    [17, 40],
    [60, 130],
  ] as const) {
    expect(await run(begin, end)).toEqual(rowsOf(whole, begin * k, end * k));
  }
  setThreads(3);
  expect(await run(0, T)).toEqual(whole);
  setThreads(2);
  weight.dispose();
});

test.each(floats)('%s: weightedSum', async (dtype) => {
  for (const [T, k, C] of [
    [0, 2, 8],
    [1, 1, 1],
    [5, 3, 65],
    [70, 8, 96],
  ] as const) {
    const { normal } = seeded(T + C);
    const [x, base, weights] = [normal([T * k, C]), normal([T, C]), rounded(normal([T, k]), 'float32')];
    const given = { x: spread(x, dtype, 3), weights: tensorOf(weights, 'float32') };
    const exactly = rounded(x, dtype);
    expectClose(await readNd(weightedSum(given)), weightedSumReference(exactly, weights), dtype);
    const based = weightedSum({ ...given, base: spread(base, dtype, 1) });
    expectClose(await readNd(based), weightedSumReference(exactly, weights, rounded(base, dtype)), dtype);
  }
});

test('errors', async () => {
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const weight = weightFrom(zeros([64, 8]), 'float32');
  const ids = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [1, values.length] });
  const good = { x: zeros([1, 8]), ids: ids([0, 1]), weight, experts: 2 };
  const call = (change: object) => errorOf(() => groupedMatmul({ ...good, ...change }));
  expect(call({ x: zeros([3, 8]) })).toMatchObject({ code: 'ERR_SHAPE', op: 'groupedMatmul' });
  expect(call({ x: zeros([1, 9]) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ ids: zeros([1, 2]) })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(call({ experts: 3 })).toMatchObject({ code: 'ERR_ARGUMENT' });
  for (const wrong of [-1, 2]) {
    await expect(groupedMatmul({ ...good, ids: ids([0, wrong]) }).read()).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: expect.stringMatching(/ids\[1\] must be in \[0, 2\), got/),
    });
  }
  const sum = (change: object) => errorOf(() => weightedSum({ x: zeros([4, 8]), weights: zeros([2, 2]), ...change }));
  expect(sum({ x: zeros([3, 8]) })).toMatchObject({ code: 'ERR_SHAPE', op: 'weightedSum' });
  expect(sum({ base: zeros([4, 8]) })).toMatchObject({ code: 'ERR_SHAPE' });
  weight.dispose();
});
