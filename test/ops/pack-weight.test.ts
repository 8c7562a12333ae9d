// packWeight, seen through embedding, which reads the rows of a weight back.
import { embedding } from '../../lib/ops/embedding';
import { packWeight, packWeightCost, packWeightReference, weightFrom } from '../../lib/ops/pack-weight';
import { nd } from '../../lib/ops/reference';
import { Weight, weightDTypes } from '../../lib/ops/weight';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, floats, spread } from '../support/close';

async function rowsBack(weight: Weight) {
  const ids = Array.from({ length: weight.shape[0] }, (_, n) => n);
  return readNd(embedding({ ids: Tensor.from(ids, { dtype: 'int32', shape: [ids.length] }), weight }));
}

// N, K
const sizes: [number, number][] = [
  [1, 1],
  [31, 33],
  [32, 64],
  [33, 65],
  [70, 127],
  [97, 200],
];

describe.each(weightDTypes)('to %s', (dtype) => {
  test.each(sizes)('N %i, K %i: the values, rounded once', async (N, K) => {
    for (const from of floats) {
      const source = rounded(seeded(N + K).normal([N, K]), from);
      for (const group of dtype === 'int8' ? [0, 32, 64] : [0]) {
        const exact = packWeightReference(rounded(source, dtype), dtype, group);
        const expected = rounded(exact, 'float32').data;
        expect((await rowsBack(weightFrom(tensorOf(source, from), dtype, { group }))).data).toEqual(expected);
        expect((await rowsBack(weightFrom(spread(source, from, 3), dtype, { group }))).data).toEqual(expected);
      }
    }
  });

  test('parts beside each other leave each other alone', async () => {
    const [N, K] = [75, 37];
    const source = rounded(rounded(seeded(9).normal([N, K]), 'float32'), dtype);
    const weight = Weight.zeros([N, K], dtype);
    const all = tensorOf(source, 'float32');
    for (const [begin, end] of [
      [40, 75],
      [0, 3],
      [3, 40],
    ] as const) {
      packWeight({ source: all.view([end - begin, K], begin * K, K), weight, row: begin });
    }
    const expected = rounded(packWeightReference(source, dtype), 'float32');
    expect((await rowsBack(weight)).data).toEqual(expected.data);
    expect(await weight.data.read()).toEqual(await weightFrom(all, dtype).data.read());
  });

  test('no rows', async () => {
    const weight = Weight.zeros([2, 3], dtype);
    packWeight({ source: Tensor.zeros({ dtype: 'float32', shape: [0, 3] }), weight, row: 2 });
    expect((await rowsBack(weight)).data).toEqual(new Float64Array(6));
  });
});

test('int8 is within half a step of the source, and keeps what is not finite', async () => {
  const [N, K] = [40, 300];
  const source = rounded(seeded(10).normal([N, K]), 'float32');
  const back = await rowsBack(weightFrom(tensorOf(source, 'float32'), 'int8', { group: 96 }));
  for (let n = 0; n < N; n++) {
    for (let begin = 0; begin < K; begin += 96) {
      const range = [n * K + begin, n * K + Math.min(K, begin + 96)] as const;
      const values = source.data.slice(...range);
      const step = Math.max(...values.map(Math.abs)) / 127;
      back.data.slice(...range).forEach((value, i) => {
        expect(Math.abs(value - values[i]!)).toBeLessThanOrEqual(0.5001 * step);
      });
    }
  }
  const odd = nd([3, 64]);
  odd.data.fill(1);
  odd.data[5] = Number.NaN;
  odd.data[64 + 40] = Number.POSITIVE_INFINITY;
  odd.data.fill(2 ** -120, 128, 160);
  const held = (await rowsBack(weightFrom(tensorOf(odd, 'float32'), 'int8', { group: 32 }))).data;
  const finite = Array.from({ length: 6 }, (_, group) => held.slice(group * 32, group * 32 + 32));
  expect(finite.map((group) => group.filter(Number.isFinite).length)).toEqual([0, 32, 32, 0, 32, 32]);
  expect(finite[4]!.every((value) => value === 0)).toBe(true);
});

test('bytes of a weight', () => {
  expect(Weight.zeros([33, 7], 'bfloat16').byteLength).toBe(64 * 8 * 2);
  expect(Weight.zeros([33, 7], 'float32').byteLength).toBe(64 * 8 * 4);
  expect(Weight.zeros([33, 70], 'int8', { group: 32 }).byteLength).toBe(64 * 70 + 64 * 3 * 4);
  expect(packWeightCost(10, 2, 1)).toEqual({ bytes: 30, flops: 0 });
});

test('errors', () => {
  const weight = Weight.zeros([3, 4], 'float16');
  const source = Tensor.zeros({ dtype: 'float32', shape: [2, 4] });
  const call = (change: object) => errorOf(() => packWeight({ source, weight, ...change }));
  expect(call({ source: Tensor.zeros({ dtype: 'float32', shape: [2, 5] }) })).toMatchObject({
    code: 'ERR_SHAPE',
    message: 'packWeight: source must be [n, K] = [2, 4], got [2, 5]',
  });
  expect(call({ source: Tensor.zeros({ dtype: 'int8', shape: [2, 4] }) })).toMatchObject({ code: 'ERR_DTYPE' });
  for (const row of [2, -1, 0.5]) expect(call({ row })).toMatchObject({ code: 'ERR_ARGUMENT' });
  const make = (...parameters: unknown[]) =>
    errorOf(() => Weight.zeros(...(parameters as Parameters<typeof Weight.zeros>)));
  expect(make([3, 4], 'int4')).toMatchObject({ code: 'ERR_DTYPE' });
  expect(make([3, 0], 'int8')).toMatchObject({ code: 'ERR_SHAPE' });
  expect(make([3], 'int8')).toMatchObject({ code: 'ERR_SHAPE' });
  expect(make([3, 4], 'int8', { group: 31 })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(make([3, 4], 'float32', { group: 32 })).toMatchObject({ code: 'ERR_ARGUMENT' });
});
