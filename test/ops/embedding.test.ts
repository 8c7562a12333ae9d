import { embedding, embeddingCost, embeddingReference } from '../../lib/ops/embedding';
import { packWeightReference, weightFrom } from '../../lib/ops/pack-weight';
import { Weight, weightDTypes } from '../../lib/ops/weight';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from '../support/arrays';
import { errorOf } from '../support/close';

const idsOf = (ids: number[]) => Tensor.from(ids, { dtype: 'int32', shape: [ids.length] });

describe.each(weightDTypes)('%s', (dtype) => {
  test.each([
    [[], 5, 3],
    [[0], 1, 1],
    [[4, 4, 0], 5, 63],
    [Array.from({ length: 130 }, (_, i) => (i * 37) % 101), 101, 257],
  ] as [number[], number, number][])('ids %j of N %i, K %i', async (ids, N, K) => {
    const source = rounded(seeded(N + K).normal([N, K]), dtype);
    const out = await readNd(embedding({ ids: idsOf(ids), weight: weightFrom(tensorOf(source, 'float32'), dtype) }));
    const expected = embeddingReference(ids, packWeightReference(rounded(source, 'float32'), dtype));
    expect(out).toEqual(rounded(expected, 'float32'));
  });
});

test('ids out of range', async () => {
  const weight = Weight.zeros([5, 3], 'float32');
  for (const [ids, text] of [
    [[0, 5], 'embedding: ids[1] must be in [0, 5), got 5'],
    [[-1], 'embedding: ids[0] must be in [0, 5), got -1'],
  ] as const) {
    const read = embedding({ ids: idsOf([...ids]), weight }).read();
    await expect(read).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'embedding', message: text });
  }
});

test('errors', () => {
  const weight = Weight.zeros([5, 3], 'float32');
  const call = (ids: unknown) => errorOf(() => embedding({ ids: ids as Tensor<'int32'>, weight }));
  expect(call(Tensor.zeros({ dtype: 'int32', shape: [1, 1] }))).toMatchObject({ code: 'ERR_SHAPE' });
  expect(call(Tensor.zeros({ dtype: 'int64', shape: [1] }))).toMatchObject({ code: 'ERR_DTYPE' });
  expect(embeddingCost(2, weight).bytes).toBeGreaterThanOrEqual(2 * 3 * 8);
});
