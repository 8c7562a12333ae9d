import { countNan, countNanReference } from '../../lib/ops/count-nan';
import { Tensor } from '../../lib/tensor/tensor';
import { seeded, tensorOf } from '../support/arrays';

const random = seeded(3);

test.each(['float32', 'bfloat16', 'float16'] as const)('countNan of %s', async (dtype) => {
  for (const [size, every] of [
    [0, 1],
    [1, 1],
    [300_000, 7],
    [262_144, 262_144],
    [1000, 2000],
  ] as const) {
    const x = random.normal([size]);
    for (let i = every - 1; i < size; i += every) x.data[i] = Number.NaN;
    if (size > 3) x.data.set([Infinity, -Infinity], 1);
    const found = await countNan(tensorOf(x, dtype)).read();
    expect(found).toEqual(Int32Array.of(countNanReference(x)));
  }
});

test('other dtypes are refused', () => {
  const x = Tensor.from([1], { dtype: 'int32', shape: [1] });
  expect(() => countNan(x)).toThrow(expect.objectContaining({ code: 'ERR_DTYPE' }));
});
