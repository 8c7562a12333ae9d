// Why time per token does not grow with the context: a slice is the same commands wherever it stands. (That its memory is
// the same too is shown by memory.long.test.ts, in processes of their own.)
import { load } from '../../lib/generation/load';
import { counters } from '../../lib/tensor/device';
import { device, settled } from '../support/device';
import { readGolden } from '../support/golden';

test('a slice after 1,000 and after 30,000 tokens runs the same commands', async () => {
  const model = await load({ model: readGolden('gated_deltanet/hybrid').folder, maxSequences: 2 });
  const measured = [];
  for (const length of [1024, 30 * 1024]) {
    const session = model.createSession();
    const tokens = Int32Array.from({ length: length + 512 }, (_, i) => (i * 7) % 200);
    await session.prefill({ tokens: tokens.subarray(0, length) });
    await settled();
    const before = counters(device).commands;
    await session.prefill({ tokens });
    await settled();
    measured.push(counters(device).commands - before);
    await session.dispose();
  }
  expect(measured[0]).toBeGreaterThan(20);
  expect(measured[1]).toBe(measured[0]);
  await model.dispose();
});
