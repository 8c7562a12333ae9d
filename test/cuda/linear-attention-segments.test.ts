// linearAttention of bfloat16 of rows of 1,024 tokens and more, which are cut into segments where there are few heads.
import { bitsOf, type CaseOptions, makeCase, runCase } from '../support/linear-attention';
import { base, expectCloseInChunks as expectClose, kinds } from '../support/linear-attention-chunks';

describe('long rows', () => {
  const long: CaseOptions = { ...base, lengths: [1100], slots: 24 };

  test.each(kinds)('%s, decay %s', async (rule, decay) => {
    for (const heads of [
      [1, 1, 1],
      [2, 1, 1],
    ] as const) {
      const x = makeCase({ ...long, rule, decay, heads, seed: 12 });
      x.call.positions = [40];
      x.call.checkpoints = { every: 256, slots: [20, 21, 22, 23] };
      await expectClose(x);
    }
  });

  test.each(kinds)('beside short ones: %s, decay %s', async (rule, decay) => {
    const x = makeCase({ ...long, K: 128, rule, decay, lengths: [1, 90, 1030], seed: 13 });
    x.call.readSlots = [0, -1, 2];
    await expectClose(x);
  });

  test.each([0.5, 2])('keys near one direction, beta %d', async (beta) => {
    for (const decay of ['none', 'token', 'channel'] as const) {
      await expectClose(makeCase({ ...long, rule: 'delta', decay, beta, correlated: true }), 2);
    }
    await expectClose(makeCase({ ...long, rule: 'lowRank', decay: 'none', correlated: true }));
  });

  test('the same bits twice', async () => {
    const x = makeCase({ ...long, rule: 'delta', decay: 'token', seed: 14 });
    const [one, other] = [runCase(x), runCase(x)];
    expect((await bitsOf([one.out, one.state])).equals(await bitsOf([other.out, other.state]))).toBe(true);
  });
});
