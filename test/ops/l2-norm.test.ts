// l2Norm against float64, and its laws.
import { l2Norm, l2NormReference } from '../../lib/ops/l2-norm';
import { nd } from '../../lib/ops/reference';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { bitsOf } from '../support/linear-attention';

const dtypes = ['float32', 'bfloat16', 'float16'] as const;

describe.each(dtypes)('%s', (dtype) => {
  test.each([
    [0, 2, 8],
    [1, 1, 1],
    [3, 2, 7],
    [2, 3, 63],
    [5, 1, 64],
    [130, 2, 128],
    [1, 4, 257],
    [2, 2, 0],
  ])('[%i, %i, %i]', async (T, H, D) => {
    const x = rounded(seeded(T + D).normal([T, H, D], 3), dtype);
    for (const [eps, scale] of [
      [1e-6, undefined],
      [0.5, 0.125],
    ] as const) {
      const exact = l2NormReference(x, eps, scale);
      const out = await readNd(l2Norm({ x: tensorOf(x, dtype), eps, scale }));
      expect(out.shape).toEqual([T, H, D]);
      const limit = 2 * relativeError(rounded(exact, dtype), exact) + 4 * ulp[dtype];
      expect(relativeError(out, exact)).toBeLessThanOrEqual(limit);
    }
  });
});

test('a vector of zeros stays zero', async () => {
  expect((await readNd(l2Norm({ x: Tensor.zeros({ dtype: 'float32', shape: [1, 1, 9] }), eps: 1e-6 }))).data).toEqual(
    new Float64Array(9),
  );
});

test('reads a column of a wider array, and every row alone gives the same bits', async () => {
  const wide = tensorOf(seeded(4).normal([7, 50]), 'bfloat16');
  const view = (from: number, rows: number) => wide.view([rows, 2, 17], 5 + from * 50, 50);
  const all = await bitsOf([l2Norm({ x: view(0, 7), eps: 1e-6 })]);
  const rows = [0, 1, 2, 3, 4, 5, 6].map((t) => l2Norm({ x: view(t, 1), eps: 1e-6 }));
  expect((await bitsOf(rows)).equals(all)).toBe(true);
});

test.each([
  ['rank', { x: tensorOf(nd([2, 8]), 'float32'), eps: 1e-6 }, 'ERR_SHAPE', /x must be \[T, H, D\], got \[2, 8\]/],
  ['dtype', { x: tensorOf(nd([1, 1, 8]), 'int32'), eps: 1e-6 }, 'ERR_DTYPE', /got int32/],
  ['eps', { x: tensorOf(nd([1, 1, 8]), 'float32'), eps: -1 }, 'ERR_ARGUMENT', /eps must be a number of 0 or more/],
  ['scale', { x: tensorOf(nd([1, 1, 8]), 'float32'), eps: 0, scale: NaN }, 'ERR_ARGUMENT', /scale must be a number/],
] as const)('refuses another %s', (_, input, code, message) => {
  expect(() => l2Norm(input as Parameters<typeof l2Norm>[0])).toThrow(
    expect.objectContaining({ code, op: 'l2Norm', message: expect.stringMatching(message) }),
  );
});
