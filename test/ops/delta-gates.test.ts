import { deltaGates, deltaGatesReference, stepGates, stepGatesReference } from '../../lib/ops/delta-gates';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';

const inputs = (T: number, H: number) => {
  const { normal } = seeded(T * 100 + H);
  return { a: normal([T, H], 4), b: normal([T, H], 4), aLog: normal([H]), dtBias: normal([H], 2) };
};

describe.each(floats)('%s', (dtype) => {
  test.each([
    [0, 4],
    [1, 1],
    [3, 16],
    [1, 33],
    [700, 17],
    [1, 64],
  ])('deltaGates [%i, %i]', async (T, H) => {
    const { a, b, aLog, dtBias } = inputs(T, H);
    for (const betaScale of [1, 2] as const) {
      const { g, beta } = deltaGates({
        a: spread(a, dtype, 2),
        b: spread(b, dtype, 9),
        aLog: tensorOf(aLog, 'float32'),
        dtBias: tensorOf(dtBias, 'float32'),
        betaScale,
      });
      const exact = deltaGatesReference(
        {
          a: rounded(a, dtype),
          b: rounded(b, dtype),
          aLog: rounded(aLog, 'float32'),
          dtBias: rounded(dtBias, 'float32'),
        },
        betaScale,
      );
      expectClose(await readNd(g), exact.g, 'float32');
      expectClose(await readNd(beta), exact.beta, 'float32');
      expect(g.dtype).toBe('float32');
    }
  });
});

test.each(floats)('%s: stepGates', async (dtype) => {
  for (const [T, H] of [
    [0, 4],
    [3, 16],
    [700, 17],
  ] as const) {
    const { a, aLog, dtBias } = inputs(T, H);
    const heads = { aLog: tensorOf(aLog, 'float32'), dtBias: tensorOf(dtBias, 'float32') };
    const exactly = { a: rounded(a, dtype), aLog: rounded(aLog, 'float32'), dtBias: rounded(dtBias, 'float32') };
    for (const [min, max] of [
      [undefined, undefined],
      [0.25, 2],
    ] as const) {
      const limits = min === undefined ? {} : { min, max };
      const { g, step } = stepGates({ a: spread(a, dtype, 2), ...heads, ...limits });
      const exact = stepGatesReference(exactly, min, max);
      expectClose(await readNd(g), exact.g, 'float32');
      expectClose(await readNd(step), exact.step, 'float32');
    }
  }
});

test('a step that is not a number stays one', async () => {
  const one = (value: number) => Tensor.from([value], { dtype: 'float32', shape: [1] });
  const a = Tensor.from([Number.NaN], { dtype: 'float32', shape: [1, 1] });
  const { g, step } = stepGates({ a, aLog: one(0), dtBias: one(0), min: 0.1, max: 1 });
  expect([...(await g.read()), ...(await step.read())]).toEqual([Number.NaN, Number.NaN]);
});

test('a row is the same whatever its company', async () => {
  const { a, b, aLog, dtBias } = inputs(50, 19);
  const heads = { aLog: tensorOf(aLog, 'float32'), dtBias: tensorOf(dtBias, 'float32') };
  const run = async (begin: number, end: number) => {
    const part = (x: typeof a) => tensorOf(rowsOf(x, begin, end), 'float32');
    return (await readNd(deltaGates({ a: part(a), b: part(b), ...heads }).g)).data;
  };
  expect(await run(31, 32)).toEqual((await run(0, 50)).slice(31 * 19, 32 * 19));
});

test('errors', () => {
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const good = { a: zeros([2, 4]), b: zeros([2, 4]), aLog: zeros([4]), dtBias: zeros([4]) };
  const call = (change: object) => errorOf(() => deltaGates({ ...good, ...change }));
  expect(call({ b: zeros([2, 3]) })).toMatchObject({ code: 'ERR_SHAPE', op: 'deltaGates' });
  expect(call({ aLog: zeros([3]) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ dtBias: zeros([1, 4]) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ a: zeros([4]) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ b: Tensor.zeros({ dtype: 'float16', shape: [2, 4] }) })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(call({ aLog: Tensor.zeros({ dtype: 'int32', shape: [4] }) })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(call({ betaScale: 3 })).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(errorOf(() => stepGates({ ...good, min: 2, max: 1 }))).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(errorOf(() => stepGates({ ...good, aLog: zeros([3]) }))).toMatchObject({ code: 'ERR_SHAPE' });
});
