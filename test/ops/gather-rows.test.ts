import { gatherRows, gatherRowsCost, gatherRowsReference } from '../../lib/ops/gather-rows';
import { type DType, dtypes } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, spread } from '../support/close';

const rowsTensor = (rows: number[]) => Tensor.from(rows, { dtype: 'int32', shape: [rows.length] });

describe.each(dtypes)('%s', (dtype: DType) => {
  test.each([
    [[], 4, 3],
    [[0], 1, 1],
    [[3, 0, 3], 4, 65],
    [Array.from({ length: 300 }, (_, i) => (i * 7) % 50), 50, 100],
  ] as [number[], number, number][])('rows %j of T %i, C %i', async (rows, T, C) => {
    const whole = seeded(T).uniform([T, C], 0, 100);
    const x = rounded({ shape: [T, C], data: whole.data.map(Math.floor) }, dtype);
    const out = gatherRows({ x: tensorOf(x, dtype), rows: rowsTensor(rows) });
    expect(out.dtype).toBe(dtype);
    expect(await readNd(out)).toEqual(gatherRowsReference(x, rows));
  });
});

test('rows that lie apart', async () => {
  const x = rounded(seeded(1).normal([4, 5]), 'float16');
  const out = gatherRows({ x: spread(x, 'float16', 3), rows: rowsTensor([2, 1]) });
  expect(await readNd(out)).toEqual(gatherRowsReference(x, [2, 1]));
});

test('errors', async () => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [2, 3] });
  for (const row of [2, -1]) {
    await expect(gatherRows({ x, rows: rowsTensor([0, row]) }).read()).rejects.toMatchObject({
      code: 'ERR_ARGUMENT',
      message: `gatherRows: rows[1] must be in [0, 2), got ${row}`,
    });
  }
  const call = (values: object) => errorOf(() => gatherRows({ x, rows: rowsTensor([0]), ...values }));
  expect(call({ x: Tensor.zeros({ dtype: 'float32', shape: [2] }) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ rows: Tensor.zeros({ dtype: 'int32', shape: [1, 1] }) })).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call({ rows: Tensor.zeros({ dtype: 'float32', shape: [1] }) })).toMatchObject({ code: 'ERR_DTYPE' });
  expect(gatherRowsCost(2, 3, 4)).toEqual({ bytes: 48, flops: 0 });
});
