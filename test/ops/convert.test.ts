import { convert, convertCost, convertInto, convertReference } from '../../lib/ops/convert';
import { nd } from '../../lib/ops/reference';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, floats, spread } from '../support/close';

describe.each(floats)('%s', (from) => {
  describe.each(floats)('to %s', (to) => {
    test.each([[[0]], [[]], [[1]], [[65]], [[7, 129]], [[2, 3, 31]], [[40000]]])('%j', async (shape) => {
      const x = rounded(seeded(shape.length).normal(shape, 100), from);
      const out = convert({ x: tensorOf(x, from), dtype: to });
      expect(out.dtype).toBe(to);
      expect(await readNd(out)).toEqual(rounded(convertReference(x), to));
      if (shape.length < 2) return;
      expect(await readNd(convert({ x: spread(x, from, 3), dtype: to }))).toEqual(await readNd(out));
      const into = spread(nd(shape), to, 5);
      convertInto({ x: spread(x, from, 3), into });
      expect(await readNd(convert({ x: into, dtype: to }))).toEqual(await readNd(out));
    });
  });
});

test('ties go to even, and what is too large, subnormal or not a number stays what it is', async () => {
  const x = nd([6], [1 + 2 ** -8, 1 + 3 * 2 ** -8, 65520, 2 ** -24, Number.NaN, Number.NEGATIVE_INFINITY]);
  const bfloat16 = await readNd(convert({ x: tensorOf(x, 'float32'), dtype: 'bfloat16' }));
  expect([...bfloat16.data]).toEqual([1, 1 + 2 ** -6, 65536, 2 ** -24, Number.NaN, Number.NEGATIVE_INFINITY]);
  const float16 = await readNd(convert({ x: tensorOf(x, 'float32'), dtype: 'float16' }));
  const exact = [1 + 2 ** -8, 1 + 3 * 2 ** -8];
  expect([...float16.data]).toEqual([...exact, Infinity, 2 ** -24, Number.NaN, Number.NEGATIVE_INFINITY]);
});

test('errors', () => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [2] });
  const ints = Tensor.zeros({ dtype: 'int32', shape: [2] }) as never;
  expect(errorOf(() => convert({ x: ints, dtype: 'float32' }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => convert({ x, dtype: 'int8' as never }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => convertInto({ x, into: ints }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => convertInto({ x: ints, into: x }))).toMatchObject({ code: 'ERR_DTYPE' });
  const into = Tensor.zeros({ dtype: 'float16', shape: [1, 2] });
  expect(errorOf(() => convertInto({ x, into }))).toMatchObject({
    code: 'ERR_SHAPE',
    message: 'convert: into must be [2] as x, got [1, 2]',
  });
  expect(convertCost(3, 4, 2)).toEqual({ bytes: 18, flops: 0 });
});
