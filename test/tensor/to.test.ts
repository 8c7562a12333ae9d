// Tensor.to: other dtypes, other devices, and what follows the copy in the queues.

import { type DeviceName, Tensor } from '../../lib/index';
import { convert } from '../../lib/ops/convert';
import { deviceOf } from '../../lib/tensor/device';
import { type DType, dtypes, newArray } from '../../lib/tensor/dtype';
import { scope } from '../../lib/tensor/scope';
import { rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, floats, spread } from '../support/close';
import { device } from '../support/device';
import { collectForgotten, held, thrown } from '../support/held';

/** The device of the tests, and the cpu: the same one by default. */
const targets = [...new Set<DeviceName>([device, 'cpu'])];

/** Bytes 0, 1, 2 ... as a tensor of a dtype. */
function counting<D extends DType>(dtype: D, shape: readonly number[]): Tensor<D> {
  const array = newArray(
    dtype,
    shape.reduce((product, size) => product * size, 1),
  );
  new Uint8Array(array.buffer).forEach((_, i, bytes) => {
    bytes[i] = i % 63; // no NaN among the floats
  });
  return Tensor.from(array, { dtype, shape });
}

describe.each(targets)('to %s', (target) => {
  test.each(dtypes)('%s keeps its bytes, and is another tensor', async (dtype) => {
    for (const shape of [[], [0], [5], [3, 7, 33]]) {
      const x = counting(dtype, shape);
      const moved = x.to({ device: target });
      const back = moved.to({ device });
      const wanted = await x.read();
      x.dispose();
      expect(moved).toMatchObject({ dtype, shape, device: target });
      expect(await moved.read()).toEqual(wanted);
      expect(await back.read()).toEqual(wanted);
      for (const tensor of [moved, back]) tensor.dispose();
    }
  });

  test.each(floats)('%s becomes every float as convert makes it', async (from) => {
    const values = rounded(seeded(3).normal([5, 37], 100), from);
    for (const dtype of floats) {
      const wanted = await convert({ x: tensorOf(values, from), dtype }).read();
      for (const x of [tensorOf(values, from), spread(values, from, 3)]) {
        const out = x.to({ dtype, device: target });
        expect(out).toMatchObject({ dtype, shape: [5, 37], device: target });
        expect(await out.read()).toEqual(wanted);
      }
    }
  });

  test('is in order with what comes before and after, also when both are disposed at once', async () => {
    await collectForgotten();
    const before = await held();
    const results: Promise<Float32Array>[] = [];
    for (let i = 0; i < 50; i++) {
      scope(() => {
        const x = Tensor.from([i + 0.25], { dtype: 'float32', shape: [1] });
        const there = x.to({ dtype: 'bfloat16', device: target }).to({ dtype: 'float32' });
        results.push(there.to({ device }).read());
      });
    }
    const values = (await Promise.all(results)).map(([value]) => value);
    expect(values).toEqual(Array.from({ length: 50 }, (_, i) => i + 0.25));
    expect(await held()).toEqual(before);
  });

  test('an error before it is the error after it', async () => {
    const huge = Tensor.zeros({ dtype: 'uint8', shape: [2 ** 46] });
    const copy = huge.to({ device: target });
    expect(await thrown(() => copy.wait())).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    expect(await thrown(() => copy.read())).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    for (const tensor of [huge, copy]) tensor.dispose();
  });
});

test('what cannot be has a code', () => {
  const x = Tensor.from([1, 2], { dtype: 'int32', shape: [2] });
  const float = Tensor.from([1, 2], { dtype: 'float32', shape: [2] });
  expect(errorOf(() => x.to({ dtype: 'float32' }))).toMatchObject({
    code: 'ERR_UNSUPPORTED',
    message: 'convert: x of int32 cannot become float32: both must be float32 or bfloat16 or float16',
  });
  expect(errorOf(() => float.to({ dtype: 'int8' }))).toMatchObject({ code: 'ERR_UNSUPPORTED' });
  expect(errorOf(() => float.to({ dtype: 'float8' as 'int8' }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => float.to({ device: 'cuda:99' }))).toMatchObject({ code: 'ERR_DEVICE' });
  expect(errorOf(() => deviceOf(device).capture(() => void float.to({ device: 'cpu' })))).toMatchObject({
    code: 'ERR_ARGUMENT',
  });
  float.dispose();
  expect(errorOf(() => float.to({ dtype: 'bfloat16' }))).toMatchObject({ code: 'ERR_DISPOSED' });
});
