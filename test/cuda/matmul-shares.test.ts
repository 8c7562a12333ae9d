// A product of so many outputs that blocks take shares of them as they come: nothing is left out, and the bits are those
// of its parts, which are few enough that each block has its own.
import { matmul } from '../../lib/ops/matmul';
import { weightFrom } from '../../lib/ops/pack-weight';
import { readNd, seeded, tensorOf } from '../support/arrays';
import { rowsOf } from '../support/close';

test.each([1, 12])('outputs of many shares, %d rows', async (T) => {
  const [K, N, parts] = [64, 76_000, 19];
  const x = tensorOf(seeded(T).normal([T, K]), 'bfloat16');
  const values = seeded(2).normal([N, K]);
  const expected: number[][] = Array.from({ length: T }, () => []);
  for (let part = 0; part < parts; part++) {
    const source = rowsOf(values, (part * N) / parts, ((part + 1) * N) / parts);
    const out = await readNd(matmul({ x, weight: weightFrom(tensorOf(source, 'float32'), 'bfloat16') }));
    for (let t = 0; t < T; t++) expected[t]!.push(...rowsOf(out, t, t + 1).data);
  }
  const weight = weightFrom(tensorOf(values, 'float32'), 'bfloat16');
  for (let time = 0; time < 3; time++) {
    const out = await readNd(matmul({ x, weight }));
    for (let t = 0; t < T; t++) expect([...rowsOf(out, t, t + 1).data]).toEqual(expected[t]);
  }
});
