// What a recorded graph does with one kernel for several ops has the bits of those ops one by one.
import { causalConv } from '../../lib/ops/causal-conv';
import { deltaGates } from '../../lib/ops/delta-gates';
import { linearAttention } from '../../lib/ops/linear-attention';
import { rmsNorm } from '../../lib/ops/rms-norm';
import { rope } from '../../lib/ops/rope';
import { packedSequences } from '../../lib/ops/sequences';
import { deviceOf } from '../../lib/tensor/device';
import { scope } from '../../lib/tensor/scope';
import type { Tensor } from '../../lib/tensor/tensor';
import { rounded, seeded, tensorOf } from '../support/arrays';
import { device } from '../support/device';
import { bitsOf } from '../support/linear-attention';

type Half = 'bfloat16' | 'float16';

/** What `enqueue` makes of states, and these, after three runs: the first replay runs op by op, later ones as one graph. */
async function expectSameBits(states: () => Tensor[], enqueue: (states: Tensor[]) => Tensor[]): Promise<void> {
  const runs = [0, 1, 2];
  const plain = states();
  const made = runs.map(() => enqueue(plain));
  const wanted = await bitsOf([...made.at(-1)!, ...plain]);
  const own = states();
  let recorded: Tensor[] = [];
  const graph = deviceOf(device).capture(() => {
    recorded = scope(() => enqueue(own));
  });
  for (const _ of runs) graph.replay();
  const got = await bitsOf([...recorded, ...own]);
  graph.dispose();
  expect(got.length).toBeGreaterThan(0);
  expect(got.equals(wanted)).toBe(true);
}

const normal = <D extends Half | 'float32'>(seed: number, shape: number[], dtype: D) =>
  tensorOf(rounded(seeded(seed).normal(shape), dtype), dtype);

describe.each(['bfloat16', 'float16'] as const)('%s', (dtype) => {
  test.each([
    { T: 1, heads: [8, 2], D: 256, rotary: 64 },
    { T: 3, heads: [2, 2], D: 128, rotary: 128 },
    { T: 2, heads: [3, 1], D: 64, rotary: 32 },
  ] as const)('norm and rotation of queries and keys: %j', async ({ T, heads, D, rotary }) => {
    const [queries, keys] = heads;
    const stride = (queries + keys) * D;
    const input = normal(1, [T, stride], dtype);
    const norms = [normal(2, [D], 'float32'), normal(3, [D], 'float32')];
    const inverseFrequencies = tensorOf(rounded(seeded(4).uniform([rotary / 2]), 'float32'), 'float32');
    const positions = Array.from({ length: T }, (_, n) => 1000 * n + 17);
    const sequences = packedSequences(new Array<number>(T).fill(1), { positions });
    const enqueue = () =>
      heads.flatMap((count, i) => {
        const x = input.view([T, count, D], i * queries * D, stride);
        const normed = rmsNorm({ x, weight: norms[i]!, eps: 1e-6, zeroCentred: true });
        return [normed, rope({ x: normed, inverseFrequencies, pairing: 'half', sequences })];
      });
    await expectSameBits(() => [], enqueue);
  });

  test.each([
    { Hk: 2, Hv: 2, readSlots: [0], writeSlots: [1] },
    { Hk: 1, Hv: 2, readSlots: [2, -1, 0], writeSlots: [1, 3, -1] },
    { Hk: 2, Hv: 6, readSlots: [1, 2], writeSlots: [1, 2] },
  ])('a step of the gated delta rule: %j', async ({ Hk, Hv, readSlots, writeSlots }) => {
    const [T, D, taps] = [readSlots.length, 128, 4];
    const keys = Hk * D;
    const channels = 2 * keys + Hv * D;
    const stride = channels + 2 * Hv;
    const input = normal(1, [T, stride], dtype);
    const weight = normal(2, [channels, taps], 'float32');
    const [aLog, dtBias] = [normal(3, [Hv], 'float32'), normal(4, [Hv], 'float32')];
    const sequences = packedSequences(new Array<number>(T).fill(1), { readSlots, writeSlots });
    const states = () => [normal(5, [4, channels, taps - 1], 'float32'), normal(6, [4, Hv, D, D], 'float32')];
    const enqueue = (used: Tensor[]) => {
      const [window, state] = used as [Tensor<'float32'>, Tensor<'float32'>];
      const qkv = causalConv({
        x: input.view([T, channels], 0, stride),
        weight,
        state: window,
        sequences,
        activation: 'silu',
        l2Norm: { heads: 2 * Hk, width: D, eps: 1e-6 },
      });
      const b = input.view([T, Hv], channels, stride);
      const { g, beta } = deltaGates({ b, a: input.view([T, Hv], channels + Hv, stride), aLog, dtBias });
      const { out } = linearAttention({
        q: qkv.view([T, Hk, D], 0, channels),
        k: qkv.view([T, Hk, D], keys, channels),
        v: qkv.view([T, Hv, D], 2 * keys, channels),
        rule: { name: 'delta', beta },
        decay: { per: 'token', g },
        scale: D ** -0.5,
        state,
        sequences,
      });
      return [qkv, g, beta, out!];
    };
    await expectSameBits(states, enqueue);
  });
});
