// T5's relative attention bias against Hugging Face transformers: its buckets, and a decoder's attention with them.
import { t5RelativeBias } from '../../lib/layers/relative-bias';
import { nd } from '../../lib/ops/reference';
import { packedSequences } from '../../lib/ops/sequences';
import { softmaxAttention } from '../../lib/ops/softmax-attention';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, tensorOf, ulp } from '../support/arrays';
import { readGolden } from '../support/golden';

const golden = readGolden('mechanisms/relative-bias');
const float32 = (name: string) => {
  const { shape, data } = golden.float32(name);
  return nd(shape, data);
};

test.each([
  [32, 128],
  [8, 20],
  [7, 100],
  [64, 1000],
])('%d buckets up to %d: each distance has the bucket of transformers', (buckets, maxDistance) => {
  const numbers = Array.from({ length: buckets }, (_, bucket) => bucket);
  const table = t5RelativeBias(numbers, { buckets, maxDistance });
  const wanted = golden.int32(`buckets_${buckets}_${maxDistance}`).data;
  expect(wanted.length).toBeGreaterThan(table.length);
  expect(Array.from(wanted, (_, distance) => table[Math.min(distance, maxDistance)])).toEqual([...wanted]);
});

test("softmaxAttention with the table is the self-attention of T5's decoder, in one call or in slices", async () => {
  const [q, k, v, out] = ['q', 'k', 'v', 'out'].map(float32);
  const [T, H, D] = q!.shape as [number, number, number];
  const [buckets, maxDistance] = [8, 20];
  const table = t5RelativeBias(float32('embedding').data, { buckets, maxDistance });
  const relativeBias = Tensor.from(table, { dtype: 'float32', shape: [H, maxDistance + 1] });
  for (const edges of [[T], [1, 33, 34, T]]) {
    const pages = Tensor.zeros({ dtype: 'float32', shape: [5, 2, 16, H, D] });
    const pageTable = Tensor.from([3, 1, 4, 0, 2], { dtype: 'int32', shape: [1, 5] });
    const tableRows = Tensor.from([0], { dtype: 'int32', shape: [1] });
    const actual: number[] = [];
    for (const [i, end] of edges.entries()) {
      const from = edges[i - 1] ?? 0;
      const part = (x = q!) => tensorOf(nd([end - from, H, D], x.data.subarray(from * H * D, end * H * D)), 'float32');
      const sequences = packedSequences([end - from], { positions: [from] });
      const tensors = { q: part(q), k: part(k), v: part(v), pages, pageTable, tableRows, relativeBias };
      // T5 does not scale its scores.
      actual.push(...(await readNd(softmaxAttention({ ...tensors, sequences, scale: 1 }).out)).data);
    }
    expect(relativeError(nd(out!.shape, actual), out!)).toBeLessThan(8 * ulp.float32);
  }
});

test.each([
  ['one bucket', 8, { buckets: 1, maxDistance: 8 }, /buckets must be a whole number from 2, got 1/],
  ['distances below the buckets', 8, { buckets: 8, maxDistance: 4 }, /number from 5 with 8 buckets, got 4/],
  ['half a distance', 8, { buckets: 8, maxDistance: 20.5 }, /maxDistance must be a whole number/],
  ['an embedding of other buckets', 9, { buckets: 8, maxDistance: 20 }, /\[buckets, heads\] with 8 buckets, got 9/],
  ['distances without end', 8, { buckets: 8, maxDistance: 2 ** 50 }, /heads x maxDistance must be below/],
  ['no embedding', 0, { buckets: 8, maxDistance: 20 }, /got 0 values/],
])('refuses %s', (_, values, options, message) => {
  expect(() => t5RelativeBias(new Float32Array(values), options)).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
  );
});
