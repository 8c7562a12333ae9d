// matmul against its float64 reference, and the law that a row's bits are its own.
import fc from 'fast-check';
import { matmul, matmulCost, matmulReference } from '../../lib/ops/matmul';
import { packWeight, packWeightReference, weightFrom } from '../../lib/ops/pack-weight';
import type { NdArray } from '../../lib/ops/reference';
import { Weight, type WeightDType, weightDTypes } from '../../lib/ops/weight';
import { cpu, setThreads } from '../../lib/tensor/device';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { errorOf, floats, rowsOf, spread } from '../support/close';
import { onCuda } from '../support/device';

/** The values that a weight of this dtype and group has of a source. */
const held = (source: NdArray, dtype: WeightDType, group = 0): NdArray =>
  packWeightReference(rounded(source, dtype), dtype, group);

/** Activations as the product takes them. */
const taken = (x: NdArray, dtype: WeightDType): NdArray => (dtype === 'bfloat16' ? rounded(x, dtype) : x);

// Error of a float32 chain of K products, as a random walk of half an ulp a step, and of the stored result.
const bound = (K: number, dtype: 'float32' | 'bfloat16' | 'float16') => 2 * Math.sqrt(K) * 2 ** -24 + 4 * ulp[dtype];

// Sizes for which a warp takes several tiles, and whose rows need no padding; rows just behind a power of two and far
// behind it, for cuBLASLt.
const gpuSizes: [number, number, number][] = [
  [6, 256, 2120],
  [12, 256, 4230],
  [130, 256, 200],
  [200, 256, 200],
  [1000, 128, 192],
  [1030, 128, 192],
];

// T, K, N
const sizes: [number, number, number][] = [
  [0, 64, 33],
  [1, 1, 1],
  [1, 1000, 257],
  [2, 33, 31],
  [3, 64, 32],
  [7, 65, 64],
  [11, 513, 65],
  [12, 31, 129],
  [13, 128, 97],
  [16, 63, 160],
  [25, 1537, 33],
  [300, 127, 61],
  ...(onCuda ? gpuSizes : []),
];

describe.each(weightDTypes)('%s weights', (dtype) => {
  test.each(sizes)('T %i, K %i, N %i', async (T, K, N) => {
    const random = seeded(T + K);
    const source = random.normal([N, K]);
    const bias = rounded(random.normal([N]), 'float32');
    for (const group of dtype === 'int8' ? [0, 32, 96] : [0]) {
      const weight = weightFrom(tensorOf(source, 'float32'), dtype, { group });
      const values = held(rounded(source, 'float32'), dtype, group);
      for (const xDType of floats) {
        const x = rounded(random.normal([T, K]), xDType);
        const out = matmul({ x: tensorOf(x, xDType), weight, bias: tensorOf(bias, 'float32') });
        expect(out).toMatchObject({ shape: [T, N], dtype: xDType });
        const expected = matmulReference(taken(x, dtype), values, bias);
        expect(relativeError(await readNd(out), expected)).toBeLessThan(bound(K, xDType));
      }
      const x = rounded(random.normal([T, K]), 'float32');
      const plain = await readNd(matmul({ x: tensorOf(x, 'float32'), weight }));
      const expected = matmulReference(taken(x, dtype), values);
      expect(relativeError(plain, expected)).toBeLessThan(bound(K, 'float32'));
      weight.dispose();
    }
  });

  test.each(dtype === 'int8' ? [0, 64] : [0])('a row has the same bits in any company, group %i', async (group) => {
    const [T, K, N] = [150, 401, 100];
    const x = seeded(1).normal([T, K]);
    const weight = weightFrom(tensorOf(seeded(2).normal([N, K]), 'float32'), dtype, { group });
    const whole = await readNd(matmul({ x: tensorOf(x, 'float32'), weight }));
    const spans = fc.tuple(fc.nat(T - 1), fc.integer({ min: 1, max: 30 }));
    await fc.assert(
      fc.asyncProperty(spans, async ([begin, count]) => {
        const end = Math.min(T, begin + count);
        const part = await readNd(matmul({ x: tensorOf(rowsOf(x, begin, end), 'float32'), weight }));
        // A GPU takes few rows and many along different paths.
        if (onCuda) {
          expect(relativeError(part, rowsOf(whole, begin, end))).toBeLessThan(bound(K, 'float32'));
        } else {
          expect(part).toEqual(rowsOf(whole, begin, end));
        }
      }),
      { numRuns: 40 },
    );
  });

  test('up to 16 rows have the same bits in any company, on every device', async () => {
    const [T, K, N] = [16, 200, 70];
    const x = seeded(7).normal([T, K]);
    const weight = weightFrom(tensorOf(seeded(8).normal([N, K]), 'float32'), dtype);
    const whole = await readNd(matmul({ x: tensorOf(x, 'float32'), weight }));
    for (const [begin, end] of [
      [0, 1],
      [3, 5],
      [6, 10],
      [8, 16],
    ] as const) {
      const part = await readNd(matmul({ x: tensorOf(rowsOf(x, begin, end), 'float32'), weight }));
      expect(part).toEqual(rowsOf(whole, begin, end));
    }
  });

  test('an output has the same bits in any company', async () => {
    const [T, K, sizesOfParts] = [14, 129, [70, 1, 33, 5]];
    const x = tensorOf(seeded(3).normal([T, K]), 'float32');
    const N = sizesOfParts.reduce((sum, n) => sum + n, 0);
    const fused = Weight.zeros([N, K], dtype);
    const apart: NdArray[] = [];
    let row = 0;
    for (const n of sizesOfParts) {
      const source = tensorOf(seeded(n).normal([n, K]), 'float32');
      packWeight({ source, weight: fused, row });
      apart.push(await readNd(matmul({ x, weight: weightFrom(source, dtype) })));
      row += n;
    }
    const together = await readNd(matmul({ x, weight: fused }));
    for (let t = 0; t < T; t++) {
      const expected = apart.flatMap((part) => [...rowsOf(part, t, t + 1).data]);
      expect([...rowsOf(together, t, t + 1).data]).toEqual(expected);
    }
  });

  test('same bits twice, with any number of threads, and from rows that lie apart', async () => {
    const [T, K, N] = [290, 130, 200];
    const x = seeded(4).normal([T, K]);
    const weight = weightFrom(tensorOf(seeded(5).normal([N, K]), 'float32'), dtype);
    const { threads } = cpu();
    const expected = await readNd(matmul({ x: tensorOf(x, 'float32'), weight }));
    expect(await readNd(matmul({ x: spread(x, 'float32', 7), weight }))).toEqual(expected);
    try {
      for (const other of [1, 2, 3]) {
        setThreads(other);
        expect(await readNd(matmul({ x: tensorOf(x, 'float32'), weight }))).toEqual(expected);
      }
    } finally {
      setThreads(threads);
    }
  });
});

test('a scope does not free a weight', async () => {
  const weight = scope(() => ({ kept: weightFrom(tensorOf(seeded(6).normal([3, 4]), 'float32'), 'int8') })).kept;
  const out = await matmul({ x: Tensor.zeros({ dtype: 'float32', shape: [1, 4] }), weight }).read();
  expect(out).toEqual(new Float32Array(3));
  weight.dispose();
  weight.dispose();
  const use = () => matmul({ x: Tensor.zeros({ dtype: 'float32', shape: [1, 4] }), weight });
  expect(errorOf(use)).toMatchObject({ code: 'ERR_DISPOSED' });
});

test('errors', () => {
  const weight = Weight.zeros([3, 4], 'float32');
  const x = Tensor.zeros({ dtype: 'float32', shape: [2, 4] });
  const call = (change: object) => errorOf(() => matmul({ x, weight, ...change }));
  expect(call({ x: Tensor.zeros({ dtype: 'float32', shape: [2, 5] }) })).toMatchObject({
    code: 'ERR_SHAPE',
    message: 'matmul: x must be [T, K] = [2, 4], got [2, 5]',
  });
  expect(call({ x: Tensor.zeros({ dtype: 'float32', shape: [4] }) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ x: Tensor.zeros({ dtype: 'int32', shape: [2, 4] }) })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(call({ bias: Tensor.zeros({ dtype: 'float32', shape: [4] }) })).toMatchObject({
    code: 'ERR_SHAPE',
    message: 'matmul: bias must be [N] = [3], got [4]',
  });
  expect(call({ bias: Tensor.zeros({ dtype: 'float16', shape: [3] }) })).toMatchObject({ code: 'ERR_DTYPE' });
});

test('cost counts the weight once, whatever the rows', () => {
  const weight = Weight.zeros([64, 32], 'bfloat16');
  expect(matmulCost(5, weight, 4)).toEqual({ bytes: 64 * 32 * 2 + 5 * 96 * 4, flops: 2 * 5 * 64 * 32 });
});
