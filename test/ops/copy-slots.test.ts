import { copySlots, copySlotsReference } from '../../lib/ops/copy-slots';
import { Tensor } from '../../lib/tensor/tensor';
import { seeded } from '../support/arrays';
import { errorOf } from '../support/close';

const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length] });
const counted = (size: number) => Array.from({ length: size }, (_, i) => i % 251);

test.each([
  ['one slot', 3, [7], [0], [2]],
  ['a fork to several, with pairs left out', 6, [2, 3], [1, 1, -1, 0], [0, 4, 5, -1]],
  ['nothing', 2, [5], [], []],
  ['slots of no bytes', 4, [0], [0], [1]],
  ['slots of several pieces', 3, [700001], [2], [0]],
])('%s', async (_, slots, inner, from, to) => {
  const width = inner.reduce((a, b) => a * b, 1);
  const data = counted(slots * width);
  const pool = Tensor.from(data, { dtype: 'uint8', shape: [slots, ...inner] });
  const copied = copySlots({ pool, from: ints(from), to: ints(to) });
  const exact = copySlotsReference(data, width, from, to);
  expect(Buffer.from(await pool.read()).equals(Buffer.from(exact))).toBe(true);
  expect(Array.from(await copied.read())).toEqual(from.map((source, i) => (source < 0 ? -1 : to[i])));
});

test.each(['float32', 'bfloat16', 'int64', 'int8'] as const)('%s', async (dtype) => {
  const pool = Tensor.from(counted(12), { dtype, shape: [4, 3] });
  const before = await pool.read();
  copySlots({ pool, from: ints([3]), to: ints([1]) });
  const after = await pool.read();
  expect(Array.from(after, Number)).toEqual(copySlotsReference(Array.from(before, Number), 3, [3], [1]));
});

test('a slot stride of its own: what lies between stays', async () => {
  const all = Tensor.from(counted(40), { dtype: 'int32', shape: [4, 10] });
  copySlots({ pool: all.view([4, 2, 3], 3, 10), from: ints([0]), to: ints([3]) });
  const expected = counted(40);
  for (let i = 0; i < 6; i++) expected[33 + i] = 3 + i;
  expect(Array.from(await all.read())).toEqual(expected);
});

test('random copies', async () => {
  const { int } = seeded(4);
  for (let round = 0; round < 50; round++) {
    const slots = 2 + int(9);
    const order = Array.from({ length: slots }, (_, i) => i).sort(() => int(2) - 0.5);
    const to = order.slice(0, 1 + int(slots - 1));
    const sources = order.slice(to.length);
    const from = to.map(() => sources[int(sources.length)]!);
    const data = counted(slots * 5);
    const pool = Tensor.from(data, { dtype: 'int32', shape: [slots, 5] });
    copySlots({ pool, from: ints(from), to: ints(to) });
    expect(Array.from(await pool.read())).toEqual(copySlotsReference(data, 5, from, to));
  }
});

test.each([
  [[3], [0], 'copySlots: from[0] must be below 3 and at least -1, got 3'],
  [[0, -2], [1, 2], 'copySlots: from[1] must be below 3 and at least -1, got -2'],
  [[0], [5], 'copySlots: to[0] must be below 3 and at least -1, got 5'],
  [[0, 1], [2, 2], 'copySlots: to[1] repeats slot 2'],
  [[0, 1], [1, 2], 'copySlots: slot 1 is in both from and to'],
])('from %j to %j is an error, and nothing is copied', async (from, to, message) => {
  const pool = Tensor.make({ dtype: 'int32', shape: [3, 2] }, false, true);
  pool.write(Int32Array.of(1, 2, 3, 4, 5, 6));
  const copied = copySlots({ pool, from: ints(from), to: ints(to) });
  await expect(copied.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'copySlots', message });
  expect(Array.from(await pool.read())).toEqual([1, 2, 3, 4, 5, 6]);
});

test('a failed copy taints a pool that is not transactional', async () => {
  const pool = Tensor.zeros({ dtype: 'int32', shape: [3, 2] });
  copySlots({ pool, from: ints([9]), to: ints([0]) });
  await expect(pool.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
});

test('shapes and dtypes', () => {
  const pool = Tensor.zeros({ dtype: 'int32', shape: [3, 2] });
  const call = (from: unknown, to: unknown, of: Tensor = pool) =>
    errorOf(() => copySlots({ pool: of, from: from as Tensor<'int32'>, to: to as Tensor<'int32'> }));
  expect(call(ints([0]), ints([1, 2]))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call(pool, ints([1]))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call(Tensor.zeros({ dtype: 'float32', shape: [1] }), ints([1]))).toMatchObject({ code: 'ERR_DTYPE' });
  const scalar = Tensor.zeros({ dtype: 'int32', shape: [] });
  expect(call(ints([0]), ints([1]), scalar)).toMatchObject({ code: 'ERR_SHAPE' });
});
