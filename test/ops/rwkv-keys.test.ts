import { rwkvKeys, rwkvKeysReference } from '../../lib/ops/rwkv-keys';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, spread } from '../support/close';

const inputs = (T: number, H: number, K: number) => {
  const { normal } = seeded(T * 100 + K);
  const heads = () => rounded(normal([H, K]), 'float32');
  return {
    r: normal([T, H, K]),
    k: normal([T, H, K]),
    a: normal([T, H, K], 2),
    keyScale: heads(),
    keyMix: heads(),
    bonusWeight: heads(),
  };
};

describe.each(floats)('%s', (dtype) => {
  test.each([
    [0, 2, 8],
    [1, 1, 1],
    [3, 2, 7],
    [40, 3, 64],
    [2, 2, 300],
  ])('[%i, %i, %i]', async (T, H, K) => {
    const { r, k, a, ...weights } = inputs(T, H, K);
    const vector = (name: keyof typeof weights) => tensorOf(weights[name], 'float32');
    const out = rwkvKeys({
      r: spread(r, dtype, 3),
      k: spread(k, dtype, 1),
      a: spread(a, dtype, 5),
      keyScale: vector('keyScale'),
      keyMix: vector('keyMix'),
      bonusWeight: vector('bonusWeight'),
    });
    const rows = { r: rounded(r, dtype), k: rounded(k, dtype), a: rounded(a, dtype) };
    const exact = rwkvKeysReference({ ...rows, ...weights });
    for (const name of ['read', 'write', 'key'] as const) expectClose(await readNd(out[name]), exact[name], dtype);
    const bonus = await readNd(out.bonus);
    expect(bonus.shape).toEqual([T, H]);
    // Against the sum of the products' sizes: the sum itself may cancel.
    const size = Math.sqrt(K) * 2 ** -23;
    exact.bonus.data.forEach((value, i) => {
      expect(Math.abs(bonus.data[i]! - value)).toBeLessThanOrEqual(
        8 * size * Math.sqrt(K) * Math.max(1, Math.abs(value)),
      );
    });
  });
});

test('a key of zeros reads and writes nothing', async () => {
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const rows = { r: zeros([1, 1, 8]), k: zeros([1, 1, 8]), a: zeros([1, 1, 8]) };
  const weight = zeros([1, 8]);
  const out = rwkvKeys({ ...rows, keyScale: weight, keyMix: weight, bonusWeight: weight });
  for (const tensor of Object.values(out)) for (const value of await tensor.read()) expect(Math.abs(value)).toBe(0);
});

test('errors', () => {
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const rows = { r: zeros([2, 3, 8]), k: zeros([2, 3, 8]), a: zeros([2, 3, 8]) };
  const good = { ...rows, keyScale: zeros([3, 8]), keyMix: zeros([3, 8]), bonusWeight: zeros([3, 8]) };
  const call = (change: object) => errorOf(() => rwkvKeys({ ...good, ...change }));
  expect(call({ k: zeros([2, 24]) })).toMatchObject({ code: 'ERR_SHAPE', op: 'rwkvKeys' });
  expect(call({ a: zeros([2, 3, 4]) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ keyMix: zeros([24]) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ r: Tensor.zeros({ dtype: 'float16', shape: [2, 3, 8] }) })).toMatchObject({ code: 'ERR_DTYPE' });
});
