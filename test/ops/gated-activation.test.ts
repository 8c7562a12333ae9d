import { activations } from '../../lib/ops/activation';
import { gatedActivation, gatedActivationReference } from '../../lib/ops/gated-activation';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf, expectClose, floats, rowsOf, spread } from '../support/close';

const sizes = [
  [0, 4],
  [1, 1],
  [3, 63],
  [2, 64],
  [7, 65],
  [1, 3584],
] as const;

describe.each(floats)('%s', (dtype) => {
  test.each(activations)('%s', async (activation) => {
    for (const [T, I] of sizes) {
      const { normal } = seeded(I);
      const x = normal([T, I]);
      const gate = normal([T, I], 2);
      const fused = normal([T, 2 * I]);
      const exact = gatedActivationReference(rounded(x, dtype), rounded(gate, dtype), activation);
      const dense = gatedActivation({ x: tensorOf(x, dtype), gate: tensorOf(gate, dtype), activation });
      expectClose(await readNd(dense), exact, dtype);
      const apart = gatedActivation({ x: spread(x, dtype, 3), gate: spread(gate, dtype, 1), activation });
      expect(await readNd(apart)).toEqual(await readNd(dense));
      const one = gatedActivation({ x: spread(fused, dtype, 2), activation });
      expectClose(await readNd(one), gatedActivationReference(rounded(fused, dtype), undefined, activation), dtype);
    }
  });
});

test.each(floats)('%s: from a base to x', async (dtype) => {
  for (const [T, I] of sizes) {
    const { normal } = seeded(I + 1);
    const [x, gate, base] = [normal([T, I]), normal([T, I], 2), normal([T, I])];
    const exact = gatedActivationReference(rounded(x, dtype), rounded(gate, dtype), 'sigmoid', rounded(base, dtype));
    const tensors = { x: spread(x, dtype, 3), gate: spread(gate, dtype, 1), base: spread(base, dtype, 2) };
    expectClose(await readNd(gatedActivation({ ...tensors, activation: 'sigmoid' })), exact, dtype);
  }
  const [x, base] = [
    Tensor.zeros({ dtype: 'float32', shape: [2, 4] }),
    Tensor.zeros({ dtype: 'float32', shape: [2, 3] }),
  ];
  expect(errorOf(() => gatedActivation({ x, gate: x, base, activation: 'silu' }))).toMatchObject({ code: 'ERR_SHAPE' });
});

test('wide rows and many', async () => {
  for (const shape of [
    [1, 33333],
    [37, 1001],
  ]) {
    const x = seeded(7).normal(shape);
    const out = gatedActivation({ x: tensorOf(x, 'float32'), gate: tensorOf(x, 'float32'), activation: 'silu' });
    const exact = rounded(x, 'float32');
    expectClose(await readNd(out), gatedActivationReference(exact, exact, 'silu'), 'float32');
  }
});

test('a row is the same whatever its company', async () => {
  const x = seeded(1).normal([40, 2000]);
  const run = async (a: typeof x) =>
    (await readNd(gatedActivation({ x: tensorOf(a, 'float32'), activation: 'silu' }))).data;
  const all = await run(x);
  expect(await run(rowsOf(x, 13, 14))).toEqual(all.slice(13 * 1000, 14 * 1000));
});

test('errors', () => {
  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const half = Tensor.zeros({ dtype: 'bfloat16', shape: [2, 4] }) as never;
  const x = zeros([2, 4]);
  const activation = 'silu';
  expect(errorOf(() => gatedActivation({ x, gate: zeros([2, 5]), activation }))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(errorOf(() => gatedActivation({ x: zeros([2, 3]), activation }))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(errorOf(() => gatedActivation({ x: zeros([4]), activation }))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(errorOf(() => gatedActivation({ x, gate: half, activation }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(errorOf(() => gatedActivation({ x, activation: 'x' as never }))).toMatchObject({ code: 'ERR_ARGUMENT' });
});

// So many that a GPU takes several rows at a time, which it does not with few.
test.each(['float32', 'bfloat16'] as const)('%s: a row is the same among many', async (dtype) => {
  const [rows, width] = [1101, 2056];
  const fused = seeded(9).normal([rows, 2 * width]);
  const run = async (begin: number, end: number) =>
    readNd(gatedActivation({ x: spread(rowsOf(fused, begin, end), dtype, 8), activation: 'silu' }));
  const all = await run(0, rows);
  expectClose(all, gatedActivationReference(rounded(fused, dtype), undefined, 'silu'), dtype);
  for (const [begin, end] of [
    [0, 1],
    [600, 603],
    [1100, 1101],
  ] as const) {
    expect(await run(begin, end)).toEqual(rowsOf(all, begin, end));
  }
});
