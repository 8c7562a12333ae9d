// What a recorded graph does with one kernel for several ops has the bits of those ops one by one.
import { beginStep } from '../../lib/ops/begin-step';
import { causalConv } from '../../lib/ops/causal-conv';
import { convert } from '../../lib/ops/convert';
import { deltaGates } from '../../lib/ops/delta-gates';
import { embedding } from '../../lib/ops/embedding';
import { gatedActivation } from '../../lib/ops/gated-activation';
import { linearAttention } from '../../lib/ops/linear-attention';
import { markSeen } from '../../lib/ops/mark-seen';
import { matmul } from '../../lib/ops/matmul';
import { weightFrom } from '../../lib/ops/pack-weight';
import { addRmsNorm, rmsNorm } from '../../lib/ops/rms-norm';
import { rope } from '../../lib/ops/rope';
import { packedSequences, type Sequences } from '../../lib/ops/sequences';
import { deviceOf } from '../../lib/tensor/device';
import { arrayFrom } from '../../lib/tensor/dtype';
import { scope } from '../../lib/tensor/scope';
import { Tensor } from '../../lib/tensor/tensor';
import { rounded, seeded, tensorOf } from '../support/arrays';
import { device } from '../support/device';
import { bitsOf } from '../support/linear-attention';
import { expectSameBits, type Half, normal } from '../support/recorded';

interface Mixer {
  /** [T, q | k | v | .. | b | a], with b from column `at` on. */
  readonly input: Tensor<Half>;
  readonly at: number;
  readonly Hk: number;
  readonly Hv: number;
  readonly weight: Tensor<'float32'>;
  readonly aLog: Tensor<'float32'>;
  readonly dtBias: Tensor<'float32'>;
  readonly sequences: Sequences;
}

/** The convolution, the gates and the delta rule with heads of 128, of `used`: windows and states. */
function mixerStep({ input, at, Hk, Hv, weight, aLog, dtBias, sequences }: Mixer, used: Tensor[]): Tensor[] {
  const [window, state] = used as [Tensor<'float32'>, Tensor<'float32'>];
  const D = 128;
  const [T, stride] = input.shape as [number, number];
  const keys = Hk * D;
  const channels = 2 * keys + Hv * D;
  const qkv = causalConv({
    x: input.view([T, channels], 0, stride),
    weight,
    state: window,
    sequences,
    activation: 'silu',
    l2Norm: { heads: 2 * Hk, width: D, eps: 1e-6 },
  });
  const b = input.view([T, Hv], at, stride);
  const { g, beta } = deltaGates({ b, a: input.view([T, Hv], at + Hv, stride), aLog, dtBias });
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
}

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
    { slots: [1], depth: 1024 },
    { slots: [2, -1, 0], depth: 64 },
    { slots: [0], depth: 40 },
    { slots: [0, 2, -1, 1, 3], depth: 32 },
  ])('the begin of a decode step: %j', async ({ slots, depth }) => {
    const [vocab, N] = [1000, slots.length];
    const weight = weightFrom(normal(1, [vocab, depth], dtype), dtype);
    const ints = (values: number[]) => tensorOf({ shape: [values.length], data: Float64Array.from(values) }, 'int32');
    const [rows, offsets] = [ints(slots), ints(Array.from({ length: N + 1 }, (_, n) => n))];
    // Of slot 1 a step has ended, slot 2 is not live.
    const table = Array.from({ length: 4 }, (_, n) => [
      2 * n,
      2 * n + 1,
      100 + n,
      7 * n,
      +(n === 1),
      999,
      +(n !== 2),
      5,
    ]);
    const states = () => [
      ints(table.flatMap((row) => [...row, ...new Array<number>(8).fill(0)])).view([4, 16], 0, 16),
      ints(new Array<number>(4 * 32).fill(0)).view([4, 32], 0, 32),
    ];
    await expectSameBits(states, ([sequences, seen]) => {
      const step = beginStep(rows, offsets, sequences as Tensor<'int32'>, true);
      const { readSlots, writeSlots, positions, nextPositions, tokens } = step;
      markSeen({ seen: seen as Tensor<'int32'>, rows, offsets, tokens: tokens!, vocab });
      const embedded = embedding({ ids: tokens!, weight });
      const branch = convert({ x: embedded, dtype });
      return [readSlots, writeSlots, positions, nextPositions, tokens!, embedded, branch];
    });
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
    await expectSameBits(states, (used) =>
      mixerStep({ input, at: channels, Hk, Hv, weight, aLog, dtBias, sequences }, used),
    );
  });

  test.each([
    { hidden: 256, groups: 1, outputs: 40 },
    { hidden: 1024, groups: 1, outputs: 3000 },
    { hidden: 1536, groups: 12, outputs: 512 },
    { hidden: 200, groups: 1, outputs: 24 },
  ])('products of one row that a norm or a gated activation makes: %j', async ({ hidden, groups, outputs }) => {
    const size = hidden / groups;
    const wide = normal(1, [1, 3 * hidden], dtype);
    const part = (i: number) => wide.view([1, groups, size], i * hidden, 3 * hidden);
    const weight = weightFrom(normal(2, [outputs, hidden], dtype), dtype);
    const [scale, bias] = [normal(3, [size], 'float32'), normal(4, [outputs], 'float32')];
    const enqueue = () => {
      const normed = rmsNorm({ x: part(0), weight: scale, eps: 1e-6 });
      const first = matmul({ x: normed.view([1, hidden], 0, hidden), weight, bias });
      const flat = (i: number) => wide.view([1, hidden], i * hidden, 3 * hidden);
      const gated = gatedActivation({ x: flat(1), gate: flat(2), activation: 'sigmoid' });
      const second = matmul({ x: gated, weight });
      return [normed, first, gated, second];
    };
    await expectSameBits(() => [], enqueue);
  });

  test.each([
    { Hk: 2, Hv: 2, hidden: 256, inner: 384, readSlot: 0, writeSlot: 1 },
    { Hk: 1, Hv: 2, hidden: 128, inner: 1024, readSlot: -1, writeSlot: 3 },
    { Hk: 4, Hv: 4, hidden: 512, inner: 1152, readSlot: 2, writeSlot: 2 },
    { Hk: 16, Hv: 16, hidden: 1024, inner: 384, readSlot: 1, writeSlot: 1 },
    { Hk: 16, Hv: 16, hidden: 1024, inner: 128, readSlot: 3, writeSlot: 0 },
    { Hk: 16, Hv: 16, hidden: 1024, inner: 128, readSlot: -1, writeSlot: 2 },
    { Hk: 16, Hv: 16, hidden: 1024, inner: 128, readSlot: 2, writeSlot: -1 },
  ])('layers of one token: %j', async ({ Hk, Hv, hidden, inner, readSlot, writeSlot }) => {
    const [D, taps] = [128, 4];
    const values = Hv * D;
    const channels = 2 * Hk * D + values;
    const weight = normal(2, [channels, taps], 'float32');
    const [aLog, dtBias] = [normal(3, [Hv], 'float32'), normal(4, [Hv], 'float32')];
    const sequences = packedSequences([1], { readSlots: [readSlot], writeSlots: [writeSlot] });
    const states = () => [normal(5, [4, channels, taps - 1], 'float32'), normal(6, [4, Hv, D, D], 'float32')];
    const product = (seed: number, outputs: number, inputs: number) =>
      weightFrom(normal(seed, [outputs, inputs], dtype), dtype);
    const [toMixer, fromMixer] = [product(7, channels + values + 2 * Hv, hidden), product(8, hidden, values)];
    const [toInner, fromInner] = [product(9, 2 * inner, hidden), product(10, hidden, inner)];
    const bias = normal(11, [hidden], 'float32');
    const norms = [normal(12, [hidden], 'float32'), normal(13, [D], 'float32'), normal(14, [hidden], 'float32')];
    const [first, firstResidual] = [normal(15, [1, hidden], dtype), normal(16, [1, hidden], dtype)];
    const enqueue = (used: Tensor[]) => {
      let [branch, residual]: Tensor<Half>[] = [first, firstResidual];
      return [0, 1].flatMap(() => {
        const before = { x: branch!, residual: residual!, weight: norms[0]!, eps: 1e-6, branchScale: 0.01 };
        const { out: x, sum } = addRmsNorm({ ...before, zeroCentred: true });
        const input = matmul({ x, weight: toMixer });
        const stride = input.shape[1]!;
        const mixed = mixerStep({ input, at: channels + values, Hk, Hv, weight, aLog, dtBias, sequences }, used);
        const gate = input.view([1, Hv, D], channels, stride);
        const gated = { gate, gateOrder: 'after', gateActivation: 'silu' } as const;
        const normed = rmsNorm({ x: mixed.at(-1) as Tensor<Half>, weight: norms[1]!, eps: 1e-6, ...gated });
        const back = matmul({ x: normed.view([1, values], 0, values), weight: fromMixer, bias });
        const second = addRmsNorm({ x: back, residual: sum, weight: norms[2]!, eps: 1e-6, branchScale: 0.01 });
        const fused = matmul({ x: second.out, weight: toInner });
        const activated = gatedActivation({ x: fused, activation: 'silu' });
        [branch, residual] = [matmul({ x: activated, weight: fromInner }), second.sum];
        return [x, sum, input, ...mixed, normed, back, second.out, second.sum, fused, activated, branch];
      });
    };
    await expectSameBits(states, enqueue);
  });

  test.each([
    { Hk: 4, Hv: 4, hidden: 512 },
    { Hk: 16, Hv: 16, hidden: 1024 },
  ])('offsets that change after the recording are told, and the states stay: %j', async ({ Hk, Hv, hidden }) => {
    const [D, taps] = [128, 4];
    const channels = (2 * Hk + Hv) * D;
    const stride = channels + Hv * D + 2 * Hv;
    const toMixer = weightFrom(normal(7, [stride, hidden], dtype), dtype);
    const weight = normal(2, [channels, taps], 'float32');
    const [aLog, dtBias] = [normal(3, [Hv], 'float32'), normal(4, [Hv], 'float32')];
    const [x, residual] = [normal(15, [1, hidden], dtype), normal(16, [1, hidden], dtype)];
    const norm = { x, residual, weight: normal(12, [hidden], 'float32'), eps: 1e-6 };
    const states = [normal(5, [4, channels, taps - 1], 'float32'), normal(6, [4, Hv, D, D], 'float32')];
    const sequences = packedSequences([1], { readSlots: [1], writeSlots: [2] });
    let out: Tensor | undefined;
    const graph = deviceOf(device).capture(() => {
      out = scope(() => {
        const input = matmul({ x: addRmsNorm(norm).out, weight: toMixer });
        return mixerStep({ input, at: stride - 2 * Hv, Hk, Hv, weight, aLog, dtBias, sequences }, states).at(-1)!;
      });
    });
    for (const _ of [0, 1]) graph.replay(); // the first one op by op
    const before = await bitsOf(states);
    for (const [offsets, told] of [
      [[0, 0], 'linearAttention: offsets[1] must be in [1, 1], got 0'],
      [[1, 1], 'linearAttention: offsets[0] must be in [0, 0], got 1'],
    ] as const) {
      sequences.offsets.write(Int32Array.from(offsets));
      graph.replay();
      await expect(out!.read()).rejects.toThrow(told);
      expect((await bitsOf(states)).equals(before)).toBe(true);
    }
    graph.dispose();
  });
});

test.each([
  { hidden: 512, outputs: 51_005 },
  { hidden: 1024, outputs: 51_008 },
  { hidden: 256, outputs: 51_008 },
  { hidden: 200, outputs: 24 },
])('the norm before a head, its conversion and the head: %j', async ({ hidden, outputs }) => {
  const dtype = 'bfloat16';
  const [x, residual] = [normal(1, [1, hidden], dtype), normal(2, [1, hidden], dtype)];
  // Rows that differ from their neighbours: each another part of the same numbers.
  const numbers = arrayFrom(dtype, seeded(3).normal([hidden + 1021]).data);
  const weights = new Uint16Array(outputs * hidden);
  for (let row = 0; row < outputs; row++) {
    weights.set(numbers.subarray(row % 1021, (row % 1021) + hidden), row * hidden);
  }
  const weight = weightFrom(Tensor.from(weights, { dtype, shape: [outputs, hidden] }), dtype);
  const [norm, bias] = [normal(4, [hidden], 'float32'), normal(5, [outputs], 'float32')];
  const enqueue = () => {
    const { out, sum } = addRmsNorm({ x, residual, weight: norm, eps: 1e-6, zeroCentred: true });
    const converted = convert({ x: out, dtype: 'float32' });
    return [out, sum, converted, matmul({ x: converted, weight, bias })];
  };
  await expectSameBits(() => [], enqueue);
});

test('a weight of a norm whose memory the product behind it gets', async () => {
  const [x, stored] = [normal(1, [1, 1024], 'bfloat16'), normal(2, [1024], 'bfloat16')];
  const weight = weightFrom(normal(3, [2048, 1024], 'bfloat16'), 'bfloat16');
  const enqueue = () => {
    const norm = convert({ x: stored, dtype: 'float32' });
    const out = rmsNorm({ x, weight: norm, eps: 1e-6 });
    norm.dispose();
    return [out, matmul({ x: out, weight })];
  };
  await expectSameBits(() => [], enqueue);
});
