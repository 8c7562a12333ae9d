import { divide, divideReference } from '../../lib/ops/divide';
import { nd } from '../../lib/ops/reference';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';

const inputs = (T: number, H: number, D: number) => {
  const { normal, uniform } = seeded(T + H + D);
  return {
    x: normal([T, H, D]),
    divisor: rounded(normal([T, H]), 'float32'),
    floor: rounded(uniform([T, H], 0, 2), 'float32'),
  };
};

test.each(floats)('%s', async (dtype) => {
  for (const [T, H, D] of [
    [0, 2, 8],
    [1, 1, 1],
    [3, 2, 24],
    [70, 3, 17],
  ] as const) {
    const { x, divisor, floor } = inputs(T, H, D);
    for (const eps of [0, 1e-3]) {
      const out = divide({
        x: spread(x, dtype, 5),
        divisor: tensorOf(divisor, 'float32'),
        floor: tensorOf(floor, 'float32'),
        eps,
      });
      expectClose(await readNd(out), divideReference(rounded(x, dtype), divisor, floor, eps), dtype);
      expect(out.dtype).toBe(dtype);
    }
  }
});

test('a divisor that is not a number makes its head so, an infinite floor makes it 0', async () => {
  const one = (values: number[]) => Tensor.from(values, { dtype: 'float32', shape: [1, 2] });
  const x = Tensor.from([1, 2, 3, 4], { dtype: 'float32', shape: [1, 2, 2] });
  const out = divide({ x, divisor: one([Number.NaN, 3]), floor: one([1, Number.POSITIVE_INFINITY]) });
  expect([...(await out.read())]).toEqual([Number.NaN, Number.NaN, 0, 0]);
});

test('a row is the same whatever its company', async () => {
  const { x, divisor, floor } = inputs(50, 3, 17);
  const run = async (begin: number, end: number) => {
    const [a, b, c] = [x, divisor, floor].map((array) => tensorOf(rowsOf(array, begin, end), 'float32'));
    return (await readNd(divide({ x: a!, divisor: b!, floor: c! }))).data;
  };
  expect(await run(31, 32)).toEqual((await run(0, 50)).slice(31 * 51, 32 * 51));
});

test('errors', () => {
  const of = (...shape: number[]) => tensorOf(nd(shape), 'float32');
  const good = { x: of(2, 3, 8), divisor: of(2, 3), floor: of(2, 3) };
  const call = (change: object) => errorOf(() => divide({ ...good, ...change }));
  expect(call({ x: of(2, 24) })).toMatchObject({ code: 'ERR_SHAPE', op: 'divide' });
  expect(call({ divisor: of(2, 1) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ floor: of(3, 3) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ floor: tensorOf(nd([2, 3]), 'bfloat16') })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(call({ eps: -1 })).toMatchObject({ code: 'ERR_ARGUMENT' });
});
