// The laws of linearAttention, bit by bit. Values: linear-attention-reference.test.ts; what it refuses:
// linear-attention-arguments.test.ts.
import * as fc from 'fast-check';
import { linearAttention, linearAttentionCost } from '../../lib/ops/linear-attention';
import { nd } from '../../lib/ops/reference';
import { sequences } from '../../lib/ops/sequences';
import { cpu, setThreads } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, tensorOf, ulp } from '../support/arrays';
import { onCuda } from '../support/device';
import { bitsOf, type Case, type CaseOptions, makeCase, part, pools, runCase } from '../support/linear-attention';

const bitsOfCase = ({ out, denominator, state, keySum }: ReturnType<typeof runCase>) =>
  bitsOf([out, denominator, state, keySum]);

const anyCase: fc.Arbitrary<CaseOptions> = fc
  .record({
    rule: fc.constantFrom('additive' as const, 'delta' as const, 'lowRank' as const),
    decay: fc.constantFrom('none' as const, 'head' as const, 'token' as const, 'channel' as const, 'value' as const),
    heads: fc.constantFrom([1, 1, 1] as const, [2, 1, 2] as const, [4, 2, 1] as const),
    K: fc.constantFrom(8, 24, 64, 136),
    V: fc.constantFrom(8, 16, 40),
    dtype: fc.constantFrom('float32' as const, 'bfloat16' as const, 'float16' as const),
    sums: fc.boolean(),
    seed: fc.integer({ min: 1, max: 1000 }),
  })
  .map(({ sums, ...x }) => {
    const rule = x.decay === 'value' ? 'additive' : x.rule;
    const normalize = sums && rule === 'additive' && x.decay !== 'value' ? { eps: 1e-6 } : undefined;
    return { ...x, rule, ...(normalize && { normalize }) };
  });

/** What one call or several made of the same tokens. */
type Made = readonly [outs: readonly (Tensor | undefined)[], state: Tensor | undefined, keySum: Tensor | undefined];

const madeOf = ({ out, state, keySum }: ReturnType<typeof runCase>): Made => [[out], state, keySum];

/** The same tokens in slices that end at `cuts`, one call each. */
function sliced(x: Case, cuts: readonly number[]): Made {
  const T = x.options.T;
  const edges = [0, ...cuts.filter((cut) => cut > 0 && cut < T), T].sort((a, b) => a - b);
  const pool = pools(x);
  const made = edges.slice(1).map((edge, i) => runCase(part(x, edges[i]!, edge - edges[i]!), pool));
  return [made.map(({ out }) => out), pool.state, pool.keySum];
}

const valuesOf = async (tensors: readonly (Tensor | undefined)[]) => {
  const parts = await Promise.all(tensors.filter((tensor) => tensor !== undefined).map(readNd));
  const data = Float64Array.from(parts.flatMap((one) => [...one.data]));
  return nd([data.length], data);
};

/** The same bits; of bfloat16 on a GPU, whose chunks round by where they begin, the same within that. */
async function expectSame(x: Case, made: Made, expected: Made): Promise<void> {
  const tensors = [made, expected].map(([outs, ...held]) => [outs, ...held.map((one) => [one])]);
  for (const [i, ours] of tensors[0]!.entries()) {
    const theirs = tensors[1]![i]!;
    if (onCuda && x.options.dtype === 'bfloat16') {
      expect(relativeError(await valuesOf(ours), await valuesOf(theirs))).toBeLessThanOrEqual(4 * ulp.bfloat16);
    } else {
      expect((await bitsOf(ours)).equals(await bitsOf(theirs))).toBe(true);
    }
  }
}

describe('the same bits', () => {
  test('law: for any split of a sequence, also token by token', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyCase,
        fc.integer({ min: 1, max: 70 }),
        fc.array(fc.integer({ min: 1, max: 69 }), { maxLength: 5 }),
        async (options, T, cuts) => {
          const x = makeCase({ ...options, lengths: [T] });
          const whole = madeOf(runCase(x));
          await expectSame(x, sliced(x, cuts), whole);
          await expectSame(x, sliced(x, [...Array(Math.min(T, 20)).keys()]), whole);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('law: whatever else is in the batch', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyCase,
        fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 2, maxLength: 5 }),
        async (options, lengths) => {
          const x = makeCase({ ...options, lengths });
          const together = madeOf(runCase(x));
          const T = x.options.T;
          const pool = pools(x);
          let from = 0;
          const outs = lengths.map((length, n) => {
            const one = part({ ...x, options: { ...x.options, T } }, from, length);
            from += length;
            const slots = { readSlots: [x.call.readSlots[n]!], writeSlots: [x.call.writeSlots[n]!] };
            return runCase({ ...one, call: { ...one.call, ...slots } }, pool).out;
          });
          await expectSame(x, [outs, pool.state, pool.keySum], together);
        },
      ),
      { numRuns: 40 },
    );
  });

  test('law: with any number of threads', async () => {
    const before = cpu().threads;
    try {
      for (const [i, heads] of (
        [
          [1, 1, 1],
          [4, 2, 2],
          [3, 3, 1],
        ] as const
      ).entries()) {
        const x = makeCase({ heads, K: 64, V: 136, lengths: [40, 3], seed: i });
        setThreads(1);
        const one = await bitsOfCase(runCase(x));
        for (const threads of [2, 3, 5]) {
          setThreads(threads);
          expect((await bitsOfCase(runCase(x))).equals(one)).toBe(true);
        }
      }
    } finally {
      setThreads(before);
    }
  });

  test('for states forked by one read slot as for copies of it', async () => {
    const x = makeCase({ lengths: [3, 7], slots: 4 });
    x.call.readSlots = [1, 1];
    const forked = await readNd(runCase(x).out!);
    const state = x.call.state!;
    const size = state.data.length / 4;
    const copied = makeCase({ lengths: [3, 7], slots: 4 });
    copied.call.state!.data.copyWithin(0, size, 2 * size);
    expect(await readNd(runCase(copied).out!)).toEqual(forked);
  });

  test('for strided inputs and states as for packed ones', async () => {
    const x = makeCase({ heads: [2, 1, 2], K: 16, V: 24, lengths: [9], seed: 5 });
    const { q, k, v, rule, decay } = x.call;
    const [T, width] = [9, 2 * 16 + 16 + 2 * 24];
    const fused = nd([T, width + 5]);
    [q!, k!, v!].reduce((at, array) => {
      const row = array.data.length / T;
      for (let t = 0; t < T; t++) fused.data.set(array.data.subarray(t * row, (t + 1) * row), t * (width + 5) + at);
      return at + row;
    }, 0);
    const all = tensorOf(fused, 'float32');
    const size = 2 * 24 * 16;
    const pool = Tensor.zeros({ dtype: 'float32', shape: [3, size + 32] });
    const view = (count: number, w: number, offset: number) => all.view([T, count, w], offset, width + 5);
    const state = pool.view([3, 2, 24, 16], 16, size + 32);
    const { out } = linearAttention({
      q: view(2, 16, 0),
      k: view(1, 16, 32),
      v: view(2, 24, 48),
      rule: { name: 'delta', beta: tensorOf((rule as { beta: typeof fused }).beta, 'float32') },
      decay: { per: 'token', g: tensorOf(decay!.g, 'float32') },
      scale: x.call.scale,
      state,
      sequences: sequences([T], { readSlots: [-1], writeSlots: [2] }),
    });
    x.call.readSlots = [-1];
    const packed = runCase(x);
    expect((await bitsOf([out])).equals(await bitsOf([packed.out]))).toBe(true);
    const held = (await readNd(pool)).data;
    const end = (await readNd(packed.state!)).data.subarray(size, 2 * size);
    expect(held.subarray(2 * (size + 32) + 16, 3 * (size + 32) - 16)).toEqual(end);
    expect(held.subarray(0, 2 * (size + 32) + 16).every((y) => y === 0)).toBe(true);
    expect(held.subarray(3 * (size + 32) - 16).every((y) => y === 0)).toBe(true);
  });
});

describe('checkpoints', () => {
  const slotBits = async (pool: Tensor | undefined, slot: number): Promise<Float64Array> => {
    const { shape, data } = await readNd(pool!);
    return data.slice((data.length / shape[0]!) * slot, (data.length / shape[0]!) * (slot + 1));
  };

  test('hold the state of a run that ends there, at absolute positions', async () => {
    for (const rule of ['additive', 'delta', 'lowRank'] as const) {
      const normalize = rule === 'additive' ? { normalize: { eps: 1e-6 } } : {};
      const x = makeCase({ rule, ...normalize, lengths: [200], slots: 6 });
      x.call.positions = [40]; // 64 after 24 tokens, then 128, and 192, which is skipped
      x.call.checkpoints = { every: 64, slots: [3, 4, -1] };
      const made = runCase(x);
      for (const [slot, length] of [
        [3, 24],
        [4, 88],
      ] as const) {
        const cut = runCase(part(x, 0, length), pools(x));
        for (const name of ['state', 'keySum'] as const) {
          if (made[name]) expect(await slotBits(made[name], slot)).toEqual(await slotBits(cut[name], 1));
        }
      }
      expect(await slotBits(made.state, 5)).toEqual(await slotBits(pools(x).state, 5));
    }
  });

  test('after rows of one token that come first', async () => {
    const x = makeCase({ lengths: [1, 1, 2], slots: 10 });
    x.call.checkpoints = { every: 1, slots: [6, 7, 8, 9] };
    const made = runCase(x);
    for (const [checkpoint, end] of [
      [6, 3],
      [7, 4],
      [9, 5],
    ] as const) {
      expect(await slotBits(made.state, checkpoint)).toEqual(await slotBits(made.state, end));
    }
  });

  test('after every token of short rows, row by row', async () => {
    const x = makeCase({ lengths: [2, 3], slots: 10 });
    x.call.checkpoints = { every: 1, slots: [4, 5, 6, 7, 8] };
    const made = runCase(x);
    expect(await slotBits(made.state, 5)).toEqual(await slotBits(made.state, 2));
    expect(await slotBits(made.state, 8)).toEqual(await slotBits(made.state, 3));
    const one = part(x, 0, 1);
    const first = runCase({ ...one, call: { ...one.call, readSlots: [0], writeSlots: [2] } }, pools(x));
    expect(await slotBits(made.state, 4)).toEqual(await slotBits(first.state, 2));
  });
});

test('cost counts each state once in and once out', () => {
  const sizes = { N: 1, Hq: 16, Hk: 16, Hv: 16, K: 128, V: 128, rule: 'delta', decay: 'token', width: 4 } as const;
  expect(linearAttentionCost({ ...sizes, T: 1 }).bytes).toBe(2 * 4 * 16 * 128 * 128 + 4 * (4 * 16 * 128 + 16 + 16));
  expect(linearAttentionCost({ ...sizes, T: 512 }).flops).toBe(512 * 16 * 128 * 128 * 7);
});
