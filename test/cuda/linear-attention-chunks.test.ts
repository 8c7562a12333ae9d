// linearAttention of bfloat16 at widths that matrix units take in chunks of 64 tokens, against its float64 reference.
import { onCuda } from '../support/device';
import { bitsOf, type Case, type CaseOptions, makeCase, part, pools, runCase } from '../support/linear-attention';
import { base, expectCloseInChunks as expectClose, kinds } from '../support/linear-attention-chunks';

const scaleDecays = (x: Case, by: number): Case => {
  const g = x.call.decay?.g.data;
  g?.set(g.map((value) => value * by));
  return x;
};

describe.each(kinds)('%s, decay %s', (rule, decay) => {
  const of = (options: CaseOptions) => makeCase({ ...base, rule, decay, ...options });

  test.each([9, 63, 64, 65, 200])('%i tokens', async (T) => {
    await expectClose(of({ lengths: [T], seed: T }));
  });

  test.each([
    [128, 128],
    [64, 32],
    [128, 48],
    [256, 16],
    [64, 192],
    [8, 16],
    [40, 64],
    [96, 32],
    [160, 64],
    [200, 16],
  ])('K %i, V %i', async (K, V) => {
    await expectClose(of({ K, V, seed: 3 }));
  });

  test.each([[[1, 2, 6]], [[4, 4, 1]], [[4, 1, 2]], [[1, 1, 2]]] as const)('heads %s', async (heads) => {
    const x = of({ heads, V: 16, lengths: [70], seed: 7 });
    x.call.writeSlots = x.call.readSlots;
    await expectClose(x);
  });

  test('packed rows: single, empty, fresh and dropped ones, and forks', async () => {
    const x = of({ lengths: [1, 1, 70, 0, 9, 1, 64, 3], slots: 12, seed: 5 });
    x.call.readSlots = [0, -1, 1, 2, -1, 1, 3, 1];
    x.call.writeSlots = [10, 4, 5, 6, 7, 8, -1, 9];
    x.call.positions = [64, 0, 3, 9, 0, 63, 64, 130];
    await expectClose(x);
  });

  test('without q: the state alone', async () => {
    const x = of({ heads: [1, 1, 2], lengths: [70, 1, 12], seed: 9 });
    x.call.q = undefined;
    expect(runCase(x).out).toBeUndefined();
    await expectClose(x);
  });

  test('without state', async () => {
    const x = of({ lengths: [70, 12], seed: 9 });
    x.call.state = undefined;
    await expectClose(x);
  });

  test('checkpoints at absolute positions', async () => {
    const x = of({ lengths: [3, 200, 0, 64], slots: 12, seed: 6 });
    x.call.positions = [62, 40, 128, 64];
    x.call.checkpoints = { every: 64, slots: [8, 9, -1, 10, 11] };
    await expectClose(x);
  });

  test('the same bits for a prompt that is cut where its position is a multiple of 64', async () => {
    const x = of({ lengths: [150], seed: 8 });
    x.call.positions = [30];
    const whole = runCase(x);
    const pool = pools(x);
    const outs = [runCase(part(x, 0, 98), pool).out, runCase(part(x, 98, 52), pool).out];
    const cut = await bitsOf([...outs, pool.state]);
    expect(cut.equals(await bitsOf([whole.out, whole.state]))).toBe(true);
  });

  if (decay === 'none') return;

  test.each([0, 0.01, 20])('decays times %d', async (by) => {
    await expectClose(scaleDecays(of({ K: 128, lengths: [140], seed: 10 }), by));
  });

  test('decays of 0 and -Infinity, fresh rows whatever it says', async () => {
    const x = of({ lengths: [100], seed: 11 });
    const g = x.call.decay!.g.data;
    g.set(g.map((value, i) => [-Infinity, -40, 0.5, 0, value][(i * 7) % 11] ?? value));
    await expectClose(x);
    x.call.readSlots = [-1];
    await expectClose(x);
  });
});

// How many state rows a block of the GPU takes depends on how many there are.
describe.each([
  ['additive', 'token'],
  ['additive', 'channel'],
  ['delta', 'token'],
  ['delta', 'channel'],
  ['lowRank', 'channel'],
] as const)('many heads: %s, decay %s', (rule, decay) => {
  const few = [
    [64, 64, 4],
    [128, 128, 1],
    [128, 64, 1],
    [256, 64, 1],
    [160, 64, 1],
  ] as const;
  const many = [
    [64, 128, 34],
    [64, 64, 66],
    [48, 64, 66],
    [160, 64, 34],
  ] as const;
  test.each(onCuda ? [...few, ...many] : few)('K %i, V %i, %i rows of 4', async (K, V, rows) => {
    const lengths = new Array<number>(rows).fill(2);
    lengths[0] = 150;
    await expectClose(makeCase({ ...base, rule, decay, K, V, heads: [4, 4, 4], lengths, seed: 4 }));
  });
});

describe('keys near one direction, 600 tokens', () => {
  test.each([0, 0.5, 1, 2])('delta, beta %d', async (beta) => {
    for (const decay of ['none', 'token', 'channel'] as const) {
      for (const by of decay === 'none' ? [1] : [1, 0.01]) {
        const x = makeCase({ ...base, rule: 'delta', decay, beta, correlated: true, lengths: [600] });
        await expectClose(scaleDecays(x, by), 2);
      }
    }
  });

  test('lowRank', async () => {
    for (const decay of ['none', 'channel'] as const) {
      await expectClose(makeCase({ ...base, rule: 'lowRank', decay, correlated: true, lengths: [600] }));
    }
  });
});

// What deterministic models ask for: prompts come in pieces of at most 512 tokens.
describe.each(kinds)('a row of 512 tokens: the same bits in any company: %s, decay %s', (rule, decay) => {
  test.each([
    [64, 64],
    [128, 64],
    [128, 128],
    [160, 64],
    [256, 64],
  ])('K %i, V %i', async (K, V) => {
    const company = new Array<number>(onCuda ? 80 : 2);
    const x = makeCase({ ...base, rule, decay, K, V, heads: [4, 4, 4], lengths: [512, ...company.fill(2)], slots: 2 });
    x.call.readSlots = [0, ...company.fill(-1)];
    x.call.writeSlots = [1, ...company];
    const alone = part(x, 0, 512);
    alone.call.readSlots = [0];
    alone.call.writeSlots = [1];
    const bits = async ({ out, state }: ReturnType<typeof runCase>) => {
      const row = out!.view([512, 4 * V], 0, 4 * V);
      return bitsOf([row, state]);
    };
    expect((await bits(runCase(x))).equals(await bits(runCase(alone)))).toBe(true);
  });
});

// Mamba-2's: two of them share a block on Hopper.
describe('heads of 64 state rows with the same queries and keys', () => {
  test.each(['none', 'head', 'token'] as const)('decay %s', async (decay) => {
    for (const [heads, K] of [
      [[1, 1, 4], 128],
      [[2, 2, 8], 64],
      [[1, 2, 4], 128],
    ] as const) {
      const x = makeCase({ ...base, rule: 'additive', decay, K, heads, lengths: [1, 90, 1030], slots: 24, seed: 15 });
      x.call.positions = [0, 10, 40];
      x.call.checkpoints = { every: 256, slots: [20, 21, 22, 23] };
      await expectClose(x);
    }
  });

  // Also where the emulator has few processors: one block for a row.
  test.each(['none', 'token'] as const)('a row in segments, decay %s', async (decay) => {
    const x = makeCase({
      ...base,
      rule: 'additive',
      decay,
      K: 128,
      heads: [1, 1, 2],
      lengths: [1100],
      slots: 24,
      seed: 16,
    });
    x.call.positions = [40];
    x.call.checkpoints = { every: 256, slots: [20, 21, 22, 23] };
    await expectClose(x);
  });

  test('an odd number of them', async () => {
    await expectClose(
      makeCase({ ...base, rule: 'additive', decay: 'token', K: 128, heads: [1, 1, 3], lengths: [200] }),
    );
  });

  test('the same bits as in any company', async () => {
    const company = new Array<number>(onCuda ? 80 : 2);
    const lengths = [512, ...company.fill(2)];
    const x = makeCase({ ...base, rule: 'additive', decay: 'token', K: 128, heads: [1, 1, 4], lengths, slots: 2 });
    x.call.readSlots = [0, ...company.fill(-1)];
    x.call.writeSlots = [1, ...company];
    const alone = part(x, 0, 512);
    alone.call.readSlots = [0];
    alone.call.writeSlots = [1];
    const bits = async ({ out, state }: ReturnType<typeof runCase>) =>
      bitsOf([out!.view([512, 4 * 64], 0, 4 * 64), state]);
    expect((await bits(runCase(x))).equals(await bits(runCase(alone)))).toBe(true);
  });
});

describe('key sums', () => {
  const additive: CaseOptions = { ...base, rule: 'additive', normalize: { eps: 1e-6 }, V: 32 };

  test.each(['none', 'head', 'token', 'channel'] as const)('normalize, decay %s', async (decay) => {
    for (const heads of [
      [2, 2, 2],
      [4, 2, 1],
      [1, 3, 3],
    ] as const) {
      await expectClose(makeCase({ ...additive, decay, heads, lengths: [70, 1, 9] }));
    }
    for (const K of [128, 160, 8]) {
      const x = makeCase({ ...additive, K, decay, lengths: [1, 150], slots: 6 });
      x.call.positions = [0, 10];
      x.call.checkpoints = { every: 64, slots: [4, 5] };
      await expectClose(x);
    }
  });

  test('the same bits for a prompt that is cut where its position is a multiple of 64', async () => {
    const x = makeCase({ ...additive, decay: 'token', lengths: [900], seed: 8 });
    x.call.positions = [30];
    const whole = runCase(x);
    const pool = pools(x);
    const outs = [runCase(part(x, 0, 98), pool).out, runCase(part(x, 98, 802), pool).out];
    const cut = await bitsOf([...outs, pool.state, pool.keySum]);
    expect(cut.equals(await bitsOf([whole.out, whole.state, whole.keySum]))).toBe(true);
  });

  test('without q: the state and the key sums alone', async () => {
    const x = makeCase({ ...additive, lengths: [7, 80] });
    x.call.q = undefined;
    x.call.normalize = undefined;
    await expectClose(x);
  });

  test('denominator beside an output that is not divided', async () => {
    const x = makeCase({ ...additive, heads: [4, 2, 2], lengths: [7, 80] });
    x.call.normalize = undefined;
    x.call.scale = 0.25;
    x.call.writeSlots = x.call.readSlots;
    await expectClose(x);
  });

  test('without state: normalized from zero', async () => {
    const x = makeCase({ ...additive, lengths: [90] });
    x.call.state = x.call.keySum = undefined;
    await expectClose(x);
  });
});
