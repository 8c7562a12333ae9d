// linearAttention against its float64 reference: every rule, decay, head mapping, width and dtype.
import { readNd, relativeError, rounded, ulp } from '../support/arrays';
import { type Case, type CaseOptions, type DecayKind, makeCase, reference, runCase } from '../support/linear-attention';
import { expectCloseInChunks, inChunks } from '../support/linear-attention-chunks';

// Twice the error of the recurrence with its state rounded after each token, plus 4 ulp.
async function expectClose(x: Case) {
  if (inChunks(x)) return expectCloseInChunks(x);
  const { dtype } = x.options;
  const made = runCase(x);
  const exact = reference(x);
  const plain = reference(x, Math.fround);
  if (made.out) {
    const out = await readNd(made.out);
    expect(out.shape).toEqual(exact.out.shape);
    const limit = 2 * relativeError(rounded(plain.out, dtype), exact.out) + 4 * ulp[dtype];
    expect(relativeError(out, exact.out)).toBeLessThanOrEqual(limit);
  }
  for (const name of ['state', 'keySum'] as const) {
    const tensor = made[name];
    if (!tensor) continue;
    const limit = 2 * relativeError(plain[name], exact[name]) + 4 * ulp.float32;
    expect(relativeError(await readNd(tensor), exact[name])).toBeLessThanOrEqual(limit);
  }
  if (made.denominator) {
    const limit = 2 * relativeError(plain.denominator, exact.denominator) + 4 * ulp.float32;
    expect(relativeError(await readNd(made.denominator), exact.denominator)).toBeLessThanOrEqual(limit);
  }
}

const rules = ['additive', 'delta', 'lowRank'] as const;
const decays: DecayKind[] = ['none', 'head', 'token', 'channel', 'value'];
const combinations = rules.flatMap((rule) =>
  decays.filter((decay) => rule === 'additive' || decay !== 'value').map((decay) => ({ rule, decay })),
);
const dtypes = ['float32', 'bfloat16', 'float16'] as const;
const lengths = [[1], [65], [1, 0, 17, 2]];

describe.each(combinations)('$rule with decay $decay', ({ rule, decay }) => {
  test.each(dtypes)('%s', async (dtype) => {
    for (const [i, lens] of lengths.entries()) {
      await expectClose(makeCase({ rule, decay, dtype, lengths: lens, K: 24, V: 16, seed: i + 1 }));
    }
  });

  test.each([[[2, 2, 2]], [[1, 2, 6]], [[4, 4, 1]], [[6, 1, 3]], [[8, 2, 2]], [[1, 1, 4]]] as const)(
    'heads %s',
    async (heads) => {
      await expectClose(makeCase({ rule, decay, heads, K: 16, V: 24, lengths: [9, 1], seed: 7 }));
    },
  );

  test.each([
    [8, 8],
    [16, 136],
    [40, 16],
    [64, 64],
    [136, 8],
    [128, 48],
    [512, 24],
    [8, 512],
  ])('K %i, V %i', async (K, V) => {
    await expectClose(makeCase({ rule, decay, K, V, lengths: [7], heads: [1, 1, 1], seed: 3 }));
  });
});

describe('keys near one direction, 600 tokens', () => {
  const x = { K: 32, V: 8, lengths: [600], heads: [1, 1, 1], correlated: true } as const;
  test.each([0.5, 1, 2])('delta, beta %d', async (beta) => {
    for (const decay of ['none', 'token', 'channel'] as const) await expectClose(makeCase({ ...x, decay, beta }));
  });
  test('lowRank', async () => {
    for (const decay of ['none', 'channel'] as const) await expectClose(makeCase({ ...x, rule: 'lowRank', decay }));
  });
});

describe('key sums', () => {
  const additive: CaseOptions = { rule: 'additive', normalize: { eps: 1e-6 }, K: 24, V: 16 };
  test.each(decays.slice(0, 4))('normalize, decay %s', async (decay) => {
    for (const dtype of dtypes) {
      for (const heads of [
        [2, 2, 2],
        [4, 2, 1],
        [1, 3, 3],
      ] as const) {
        await expectClose(makeCase({ ...additive, decay, heads, dtype, lengths: [17, 1] }));
      }
    }
  });

  test('denominator beside an output that is not divided', async () => {
    const x = makeCase({ ...additive, heads: [4, 2, 2], lengths: [7, 20] });
    x.call.normalize = undefined;
    x.call.scale = 0.25;
    await expectClose(x);
  });

  test('without state: normalized from zero', async () => {
    const x = makeCase({ ...additive, lengths: [12] });
    x.call.state = x.call.keySum = undefined;
    await expectClose(x);
  });
});

describe('decay', () => {
  test('below -30 counts as -30, above 0 as 0', async () => {
    for (const decay of decays.slice(1)) {
      const x = makeCase({ rule: 'additive', decay, lengths: [8] });
      const g = x.call.decay!.g.data;
      g.set(g.map((_, i) => [-Infinity, -1e4, -30.5, -1, 0.5, 0][i % 6]!));
      await expectClose(x);
    }
  });

  test.each(['delta', 'additive', 'lowRank'] as const)('%s: is 0 at the first token of a fresh row', async (rule) => {
    for (const decay of ['head', 'token', 'channel'] as const) {
      const x = makeCase({ rule, decay, lengths: [1] });
      x.call.readSlots = [-1];
      x.call.decay!.g.data.fill(Number.NaN);
      const exact = makeCase({ rule, decay, lengths: [1] });
      exact.call.readSlots = [-1];
      const made = runCase(x);
      expect(relativeError(await readNd(made.out!), reference(exact).out)).toBeLessThan(1e-6);
    }
  });

  test('NaN stays NaN', async () => {
    const x = makeCase({ rule: 'delta', decay: 'token', lengths: [3], heads: [1, 1, 1] });
    x.call.decay!.g.data[1] = Number.NaN;
    const out = await readNd(runCase(x).out!);
    expect(out.data.slice(0, 16).every(Number.isFinite)).toBe(true);
    expect(out.data.slice(16).every(Number.isNaN)).toBe(true);
  });
});

describe('half of it', () => {
  test('without q: the state alone', async () => {
    for (const rule of rules) {
      const x = makeCase({ rule, lengths: [6, 1] });
      x.call.q = undefined;
      expect(runCase(x).out).toBeUndefined();
      await expectClose(x);
    }
  });

  test('without k and v: what the state says, unchanged', async () => {
    for (const heads of [
      [1, 3, 3],
      [6, 3, 3],
    ] as const) {
      const x = makeCase({ rule: 'additive', decay: 'none', heads, lengths: [3, 1], K: 40, V: 24 });
      x.call.k = x.call.v = undefined;
      await expectClose(x);
      x.call.writeSlots = x.call.readSlots;
      await expectClose(x);
    }
    const x = makeCase({ rule: 'additive', decay: 'none', normalize: { eps: 1e-6 }, lengths: [3, 1] });
    x.call.k = x.call.v = undefined;
    await expectClose(x);
  });

  test('no tokens at all: states are copied or cleared', async () => {
    const x = makeCase({ lengths: [0, 0] });
    x.call.readSlots = [1, -1];
    await expectClose(x);
  });
});
