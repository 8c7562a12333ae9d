import { markSeen, markSeenReference } from '../../lib/ops/mark-seen';
import { Tensor } from '../../lib/tensor/tensor';
import { seeded } from '../support/arrays';
import { errorOf } from '../support/close';

const ints = (values: number[], shape = [values.length]) => Tensor.from(values, { dtype: 'int32', shape });

async function sets(seen: Tensor<'int32'>): Promise<number[][]> {
  const [slots, words] = seen.shape as [number, number];
  const data = await seen.read();
  return Array.from({ length: slots }, (_, slot) =>
    Array.from({ length: words * 32 }, (_, id) => id).filter(
      (id) => (data[slot * words + (id >> 5)]! >> (id & 31)) & 1,
    ),
  );
}

test('marks, adds and clears', async () => {
  const seen = Tensor.zeros({ dtype: 'int32', shape: [3, 3] });
  markSeen({ seen, rows: ints([2, -1, 0]), offsets: ints([0, 3, 4, 5]), tokens: ints([0, 31, 69, 7, 32]), vocab: 70 });
  expect(await sets(seen)).toEqual([[32], [], [0, 31, 69]]);
  markSeen({ seen, rows: ints([2]), offsets: ints([0, 2]), tokens: ints([31, 5]), vocab: 70 });
  expect(await sets(seen)).toEqual([[32], [], [0, 5, 31, 69]]);
  markSeen({ seen, rows: ints([2, 0]), offsets: ints([0, 1, 1]), tokens: ints([1]), vocab: 70, clear: true });
  expect(await sets(seen)).toEqual([[], [], [1]]);
});

test('random tokens, as the reference', async () => {
  const { int } = seeded(8);
  const vocab = 1001;
  const seen = Tensor.zeros({ dtype: 'int32', shape: [1, 32] });
  let expected = new Set<number>();
  for (let round = 0; round < 20; round++) {
    const tokens = Array.from({ length: int(200) }, () => int(vocab));
    const clear = int(5) === 0;
    markSeen({ seen, rows: ints([0]), offsets: ints([0, tokens.length]), tokens: ints(tokens), vocab, clear });
    expected = markSeenReference(expected, tokens, clear);
    expect((await sets(seen))[0]).toEqual([...expected].sort((a, b) => a - b));
  }
});

test.each([
  [{ rows: ints([1]) }, 'markSeen: rows[0] must be from -1 to 0, got 1'],
  [{ tokens: ints([1, 70]) }, 'markSeen: tokens[1] must be from 0 to 69, got 70'],
  [{ tokens: ints([-1, 0]) }, 'markSeen: tokens[0] must be from 0 to 69, got -1'],
  [{ offsets: ints([0, 3]) }, 'markSeen: offsets[1] must be from 0 to 2, got 3'],
  [{ offsets: ints([2, 1]) }, 'markSeen: offsets[1] must be from 2 to 2, got 1'],
])('a mistake marks nothing %#', async (change, message) => {
  const seen = Tensor.make({ dtype: 'int32', shape: [1, 3] }, true, false);
  markSeen({ seen, rows: ints([0]), offsets: ints([0, 2]), tokens: ints([3, 4]), vocab: 70, ...change });
  await expect(seen.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'markSeen', message });
});

test('errors at the call', () => {
  const seen = Tensor.zeros({ dtype: 'int32', shape: [1, 3] });
  const good = { seen, rows: ints([0]), offsets: ints([0, 1]), tokens: ints([3]), vocab: 70 };
  expect(errorOf(() => markSeen({ ...good, vocab: 97 }))).toMatchObject({ code: 'ERR_SHAPE', op: 'markSeen' });
  expect(errorOf(() => markSeen({ ...good, offsets: ints([0]) }))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(errorOf(() => markSeen({ ...good, tokens: ints([1], [1, 1]) }))).toMatchObject({ code: 'ERR_SHAPE' });
  const floats = Tensor.zeros({ dtype: 'float32', shape: [1] }) as never;
  expect(errorOf(() => markSeen({ ...good, tokens: floats }))).toMatchObject({ code: 'ERR_DTYPE' });
});
