// Products so large that the device chooses between algorithms by their times: the choice may not show in the bits.
import { matmul, matmulReference } from '../../lib/ops/matmul';
import { weightFrom } from '../../lib/ops/pack-weight';
import { deviceOf } from '../../lib/tensor/device';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { rowsOf } from '../support/close';
import { bitsOf } from '../support/linear-attention';

const emulated = deviceOf('cuda').description.startsWith('emulator'); // it has no such library, and little speed

test.each(['bfloat16', 'float16'] as const)('%s: 4,096 rows and more, again and again', async (dtype) => {
  const [rows, depth, outputs] = emulated ? [4, 64, 32] : [4100, 1024, 1536];
  const { normal } = seeded(1);
  const [x, w] = [rounded(normal([rows, depth]), dtype), rounded(normal([outputs, depth]), dtype)];
  const weight = weightFrom(tensorOf(w, 'float32'), dtype);
  const run = (count: number) => matmul({ x: tensorOf(rowsOf(x, 0, count), dtype), weight });
  const first = run(rows); // which is timed
  const bits = await bitsOf([first]);
  for (const count of [rows, rows, rows - 4]) {
    const again = await bitsOf([run(count)]);
    expect(again.equals(bits.subarray(0, again.length))).toBe(true);
  }
  const made = await readNd(first);
  for (const at of [0, rows - 3]) {
    const exact = matmulReference(rowsOf(x, at, at + 3), w);
    const bound = 2 * Math.sqrt(depth) * 2 ** -24 + 4 * ulp[dtype];
    expect(relativeError(rowsOf(made, at, at + 3), exact)).toBeLessThanOrEqual(bound);
  }
});
