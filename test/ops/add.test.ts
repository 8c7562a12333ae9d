import { add, addReference } from '../../lib/ops/add';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, spread } from '../support/close';

describe.each(floats)('%s', (dtype) => {
  test.each([[[0, 3]], [[]], [[1]], [[63]], [[3, 65]], [[2, 3, 129]], [[50000]]])('add %j', async (shape) => {
    const { normal } = seeded(shape.length);
    const a = normal(shape);
    const b = normal(shape);
    for (const scale of [1, -0.22]) {
      const out = add({ a: tensorOf(a, dtype), b: tensorOf(b, dtype), scale });
      expectClose(await readNd(out), addReference(rounded(a, dtype), rounded(b, dtype), Math.fround(scale)), dtype);
      if (shape.length < 2) continue;
      const apart = add({ a: spread(a, dtype, 5), b: spread(b, dtype, 0), scale });
      expect(await readNd(apart)).toEqual(await readNd(out));
    }
  });
});

describe.each(floats)('%s, a scale a head', (dtype) => {
  test.each([
    [0, 2, 3],
    [1, 1, 1],
    [5, 3, 8],
    [7, 2, 65],
    [300, 5, 64],
  ])('[%i, %i, %i]', async (T, H, D) => {
    const { normal } = seeded(T + D);
    const [a, b] = [normal([T, H, D]), normal([T, H, D])];
    for (const shape of [[H], [T, H]]) {
      const scales = rounded(normal(shape), 'float32');
      const scale = tensorOf(scales, 'float32');
      const sum = add({ a: spread(a, dtype, 5), b: spread(b, dtype, 3), scale });
      expectClose(await readNd(sum), addReference(rounded(a, dtype), rounded(b, dtype), scales), dtype);
      const product = add({ b: tensorOf(b, dtype), scale });
      expectClose(await readNd(product), addReference(undefined, rounded(b, dtype), scales), dtype);
    }
  });
});

test('without a scale the sum is rounded once', async () => {
  const { normal } = seeded(3);
  const a = rounded(normal([1000]), 'float32');
  const b = rounded(normal([1000], 1e-4), 'float32');
  const out = await readNd(add({ a: tensorOf(a, 'float32'), b: tensorOf(b, 'float32') }));
  expect(out.data).toEqual(rounded(addReference(a, b), 'float32').data);
});

test('errors', () => {
  const a = Tensor.zeros({ dtype: 'float32', shape: [2, 3] });
  const call = (b: unknown) => errorOf(() => add({ a, b: b as typeof a }));
  expect(call(Tensor.zeros({ dtype: 'float32', shape: [3, 2] }))).toMatchObject({
    code: 'ERR_SHAPE',
    message: 'add: b must be [2, 3] as a, got [3, 2]',
  });
  expect(call(Tensor.zeros({ dtype: 'float16', shape: [2, 3] }))).toMatchObject({ code: 'ERR_DTYPE' });
  const heads = Tensor.zeros({ dtype: 'float32', shape: [2, 3, 4] });
  const scaled = (shape: number[]) =>
    errorOf(() => add({ b: heads, scale: Tensor.zeros({ dtype: 'float32', shape }) }));
  expect(scaled([2])).toMatchObject({ code: 'ERR_SHAPE', message: 'add: scale must be [H] = [3], got [2]' });
  expect(scaled([2, 4])).toMatchObject({ code: 'ERR_SHAPE' });
  expect(errorOf(() => add({ b: a, scale: a }))).toMatchObject({ code: 'ERR_SHAPE' });
  const ints = Tensor.zeros({ dtype: 'int32', shape: [2, 3] }) as never;
  expect(errorOf(() => add({ a: ints, b: ints }))).toMatchObject({ code: 'ERR_DTYPE' });
});
