import { activation, activationReference, activations } from '../../lib/ops/activation';
import { nd } from '../../lib/ops/reference';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, spread } from '../support/close';

describe.each(floats)('%s', (dtype) => {
  test.each(activations)('%s', async (name) => {
    for (const [shape, std] of [
      [[0], 1],
      [[1], 1],
      [[17, 63], 1],
      [[3, 65], 5],
      [[2, 3, 5, 7], 0.01],
      [[40000], 3],
    ] as const) {
      const x = seeded(shape.length).normal(shape, std);
      const out = activation({ x: tensorOf(x, dtype), activation: name });
      expectClose(await readNd(out), activationReference(rounded(x, dtype), name), dtype);
    }
    const x = seeded(9).normal([5, 33]);
    const out = activation({ x: spread(x, dtype, 7), activation: name });
    expectClose(await readNd(out), activationReference(rounded(x, dtype), name), dtype);
  });
});

// Each value for itself, in ulp of float32: the L2 norm above says nothing of small results.
test.each(activations)('%s of single values', async (name) => {
  const values = [-80, -20, -9.5, -5, -3, -1.5, -0.7, -0.1, -1e-3, -1e-20, 0, 1e-20, 1e-3, 0.3, 0.9, 2, 6, 30, 90];
  const x = rounded(nd([values.length], values), 'float32');
  const actual = (await readNd(activation({ x: tensorOf(x, 'float32'), activation: name }))).data;
  const exact = activationReference(x, name).data;
  exact.forEach((value, i) => {
    // geluTanh passes through e^y, whose relative error is the rounding of y.
    const y = name === 'geluTanh' ? 1.6 * (Math.abs(values[i]!) + 0.0447 * Math.abs(values[i]!) ** 3) : 0;
    const limit = 8 + 2 * y;
    expect(Math.abs(actual[i]! - value)).toBeLessThanOrEqual(limit * 2 ** -23 * Math.abs(value) + 2 ** -148);
  });
});

test('edges', async () => {
  const x = Tensor.from([Number.NaN, Infinity, -0], { dtype: 'float32', shape: [3] });
  for (const name of activations) {
    const [nan, positive, zero] = await activation({ x, activation: name }).read();
    expect(nan).toBeNaN();
    const limits: Partial<Record<typeof name, number>> = { sigmoid: 1, tanh: 1, logSigmoid: 0 };
    expect(positive! + 0).toBe(limits[name] ?? Infinity);
    expect(zero! + 0).toBe(Math.fround(activationReference(nd([1], [0]), name).data[0]!));
  }
});

test('with a scale', async () => {
  const x = seeded(4).normal([5, 33]);
  const out = activation({ x: tensorOf(x, 'float32'), activation: 'logSigmoid', scale: -0.0625 });
  expectClose(await readNd(out), activationReference(rounded(x, 'float32'), 'logSigmoid', -0.0625), 'float32');
});

test('the reference of gelu has the published values of erfc', () => {
  const phi = (x: number) => activationReference(nd([1], [x]), 'gelu').data[0]! / x;
  expect(phi(1)).toBeCloseTo(0.8413447460685429, 14);
  expect(phi(-3) / 0.0013498980316300946).toBeCloseTo(1, 12);
  expect(phi(-6) / 9.865876450376981e-10).toBeCloseTo(1, 12);
});

test('errors', () => {
  const ints = Tensor.zeros({ dtype: 'int32', shape: [1] }) as never;
  const x = Tensor.zeros({ dtype: 'float32', shape: [1] });
  expect(errorOf(() => activation({ x: ints, activation: 'silu' }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => activation({ x, activation: 'swish' as never }))).toMatchObject({ code: 'ERR_ARGUMENT' });
});
