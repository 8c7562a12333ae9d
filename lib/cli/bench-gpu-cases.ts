// What `linattn bench --device cuda` times: ops at the shapes of Qwen3.5-0.8B and of one linear-attention layer of each
// mechanism, in bfloat16. Work is what each op's cost function counts.
import { causalConv, causalConvCost } from '../ops/causal-conv';
import { convert } from '../ops/convert';
import { gatedActivation, gatedActivationCost } from '../ops/gated-activation';
import { type LogDecay, linearAttention, linearAttentionCost, type Rule } from '../ops/linear-attention';
import { matmul, matmulCost } from '../ops/matmul';
import { addRmsNorm, rmsNorm, rmsNormCost } from '../ops/rms-norm';
import { sample, sampleCost } from '../ops/sample';
import { encodeSampling, type Sampling, samplingRow } from '../ops/sampling-table';
import { packedSequences, uniformSequences } from '../ops/sequences';
import { softmaxAttention, softmaxAttentionCost } from '../ops/softmax-attention';
import { Weight, type WeightDType } from '../ops/weight';
import type { DeviceName } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import { fillWeight, someValues } from './bench-data';
import { shapes } from './bench-ops';
import type { Work } from './bench-timing';

export interface GpuCase {
  readonly name: string;
  readonly work: Work;
  /** Call `call` of `calls`, counted from 0. */
  readonly enqueue: (call: number) => Tensor;
  /** Calls that a time is the mean of, on so much memory in turn that none finds a warm cache; 1 when absent. */
  readonly calls?: number;
  readonly dispose: () => void;
}

type Made = { dispose(): void };

/** Makes the tensors of a case on a device; they are freed with it. */
class Maker {
  private readonly made: Made[] = [];

  constructor(readonly device: DeviceName) {}

  own<T extends Made>(one: T): T {
    this.made.push(one);
    return one;
  }

  floats(shape: readonly number[], scale = 1, offset = 0): Tensor<'float32'> {
    const data = someValues(shape, scale, offset);
    return this.own(Tensor.from(data, { dtype: 'float32', shape, device: this.device }));
  }

  halves(shape: readonly number[], scale = 1): Tensor<'bfloat16'> {
    const x = this.floats(shape, scale);
    const out = this.own(convert({ x, dtype: 'bfloat16' }));
    x.dispose();
    return out;
  }

  weight(N: number, K: number, dtype: WeightDType): Weight {
    const weight = this.own(Weight.zeros([N, K], dtype, { device: this.device }));
    return fillWeight(weight, this.floats([Math.min(N, 1024), K]));
  }

  dispose(): void {
    for (const one of this.made) one.dispose();
  }
}

export type Make = (make: Maker) => Omit<GpuCase, 'dispose'>;

export const product =
  (rows: number, name: string, K: number, N: number, dtype: WeightDType): Make =>
  (make) => {
    const weight = make.weight(N, K, dtype);
    const x = make.halves([rows, K]);
    return {
      name: `matmul ${dtype} ${name} [${rows}, ${K}] x [${N}]`,
      work: matmulCost(rows, weight, 2),
      enqueue: () => matmul({ x, weight }),
    };
  };

interface Mechanism {
  readonly name: string;
  readonly K: number;
  readonly V: number;
  readonly rule: Rule['name'];
  readonly decay?: LogDecay['per'];
  /** Heads of q and k beside H of v; H when absent. */
  readonly keyHeads?: number;
  readonly denominator?: boolean;
}

/** As the layers use them; heads are given with the case. */
export const mechanisms: readonly Mechanism[] = [
  { name: 'GDN', K: 128, V: 128, rule: 'delta', decay: 'token' },
  { name: 'DeltaNet', K: 128, V: 128, rule: 'delta' },
  { name: 'KDA', K: 128, V: 128, rule: 'delta', decay: 'channel' },
  { name: 'GLA', K: 128, V: 128, rule: 'additive', decay: 'channel' },
  { name: 'RWKV-7', K: 64, V: 64, rule: 'lowRank', decay: 'channel' },
  { name: 'simple GLA', K: 128, V: 128, rule: 'additive', decay: 'token' },
  { name: 'RetNet', K: 128, V: 128, rule: 'additive', decay: 'head' },
  { name: 'linear', K: 128, V: 128, rule: 'additive' },
  { name: 'linear with denominator', K: 128, V: 128, rule: 'additive', denominator: true },
  { name: 'Mamba-2', K: 128, V: 64, rule: 'additive', decay: 'token', keyHeads: 1 },
];

/** What linearAttention reads of `batch` x `tokens`, but for its sequences; `slots` states. */
function mechanismInput(make: Maker, mechanism: Mechanism, batch: number, tokens: number, H: number, slots: number) {
  const { K, V, rule, decay, denominator = false } = mechanism;
  const [T, Hk] = [batch * tokens, mechanism.keyHeads ?? H];
  const keys = (heads: number) => make.halves([T, heads, K], 2 * K ** -0.5);
  const rules: Record<Rule['name'], () => Rule> = {
    additive: () => ({ name: 'additive' }),
    delta: () => ({ name: 'delta', beta: make.floats([T, H], 1, 0.5) }),
    lowRank: () => ({ name: 'lowRank', a: keys(H), b: keys(H) }),
  };
  const decays = {
    head: () => make.floats([H], 0.02, -0.02),
    token: () => make.floats([T, H], 0.1, -0.06),
    channel: () => make.floats([T, H, K], 0.1, -0.06),
    value: () => make.floats([T, H, V], 0.1, -0.06),
  };
  const zeros = (...shape: number[]) =>
    make.own(Tensor.zeros({ dtype: 'float32', shape: [slots, H, ...shape], device: make.device }));
  return {
    q: keys(Hk),
    k: keys(Hk),
    v: make.halves([T, H, V]),
    rule: rules[rule](),
    decay: decay === undefined ? undefined : { per: decay, g: decays[decay]() },
    denominator,
    state: zeros(V, K),
    keySum: denominator ? zeros(K) : undefined,
  };
}

export const mechanismCase =
  (mechanism: Mechanism, batch: number, tokens: number, H: number): Make =>
  (make) => {
    const { name, K, V, rule, decay } = mechanism;
    const [T, Hk] = [batch * tokens, mechanism.keyHeads ?? H];
    const slots = Array.from({ length: batch }, (_, i) => i);
    const starts = tokens === 1 ? slots : slots.map(() => -1);
    const input = {
      ...mechanismInput(make, mechanism, batch, tokens, H, batch),
      sequences: make.own(
        packedSequences(
          slots.map(() => tokens),
          { readSlots: starts, writeSlots: slots, device: make.device },
        ),
      ),
    };
    return {
      name: `linearAttention ${name}, K = ${K}, V = ${V}, ${H} heads, ${batch} x ${tokens} tokens`,
      work: linearAttentionCost({ N: batch, T, Hq: Hk, Hk, Hv: H, K, V, rule, decay, width: 2 }),
      enqueue: () => linearAttention(input).out,
    };
  };

/** One token of one sequence at each step, of another sequence than at the step before. */
export const stepsCase =
  (mechanism: Mechanism, H: number, calls: number, slots: number): Make =>
  (make) => {
    const { rule, decay, K, V } = mechanism;
    const one = mechanismInput(make, mechanism, 1, 1, H, slots);
    const steps = Array.from({ length: slots }, (_, slot) =>
      make.own(packedSequences([1], { readSlots: [slot], writeSlots: [slot], device: make.device })),
    );
    return {
      name: `linearAttention ${mechanism.name}, K = ${K}, V = ${V}, ${H} heads, 1 x 1 tokens, ${calls} steps over ${slots} slots`,
      work: linearAttentionCost({ N: 1, T: 1, Hq: H, Hk: H, Hv: H, K, V, rule, decay, width: 2 }),
      enqueue: (call) => linearAttention({ ...one, sequences: steps[call % slots]! }).out,
      calls,
    };
  };

const softmax =
  (batch: number, tokens: number, context: number): Make =>
  (make) => {
    const [Hq, Hkv, D, pageTokens] = [8, 2, 256, 64];
    const T = batch * tokens;
    const tablePages = Math.ceil((context + tokens) / pageTokens);
    const pages = make.own(
      Tensor.zeros({ dtype: 'bfloat16', shape: [batch * tablePages, 2, pageTokens, Hkv, D], device: make.device }),
    );
    const ints = (values: number[], shape: number[]) =>
      make.own(Tensor.from(values, { dtype: 'int32', shape, device: make.device }));
    const rows = Array.from({ length: batch }, (_, i) => i);
    const pageTable = ints(
      Array.from({ length: batch * tablePages }, (_, i) => i),
      [batch, tablePages],
    );
    const positions = rows.map(() => context);
    const sequences = make.own(
      packedSequences(
        rows.map(() => tokens),
        { positions, device: make.device },
      ),
    );
    const tensors = { q: make.halves([T, Hq, D]), k: make.halves([T, Hkv, D]), v: make.halves([T, Hkv, D]) };
    const input = { ...tensors, pages, pageTable, tableRows: ints(rows, [batch]), sequences, scale: D ** -0.5 };
    const sizes = { tokens, position: context, heads: Hq, kvHeads: Hkv, width: D };
    const one = softmaxAttentionCost(sizes, { bytesPerValue: 2, bytesPerCached: 2 });
    return {
      name: `softmaxAttention 8/2 heads of 256, ${batch} x ${tokens} tokens after ${context}`,
      work: { bytes: batch * one.bytes, flops: batch * one.flops },
      enqueue: () => softmaxAttention(input).out,
    };
  };

const sampling =
  (rows: number, vocab: number, choice: Sampling): Make =>
  (make) => {
    const logits = make.floats([rows, vocab], 20);
    const { params, intParams } = encodeSampling(choice);
    const ints = (data: ArrayLike<number>, shape: number[]) =>
      make.own(Tensor.from(Int32Array.from(data), { dtype: 'int32', shape, device: make.device }));
    const input = {
      logits,
      rows: ints(new Int32Array(rows), [rows]),
      positions: ints(new Int32Array(rows), [rows]),
      params: make.own(Tensor.from(params, { dtype: 'float32', shape: [1, samplingRow], device: make.device })),
      intParams: ints(intParams, [1, samplingRow]),
    };
    return {
      name: `sample temperature ${choice.temperature}, top-p ${choice.topP}, [${rows}, ${vocab}]`,
      work: sampleCost(rows, vocab),
      enqueue: () => sample(input).token,
    };
  };

const rowOps = (T: number): Make[] => [
  (make) => {
    const [x, residual, weight] = [make.halves([T, 1024]), make.halves([T, 1024]), make.floats([1024])];
    return {
      name: `addRmsNorm [${T}, 1024]`,
      work: rmsNormCost(T * 1024, 2, { residual: true }),
      enqueue: () => addRmsNorm({ x, residual, weight, eps: 1e-6 }).out,
    };
  },
  (make) => {
    const [x, gate, weight] = [make.halves([T, 16, 128]), make.halves([T, 16, 128]), make.floats([128])];
    return {
      name: `rmsNorm gated [${T}, 16, 128]`,
      work: rmsNormCost(T * 2048, 2, { gate: true }),
      enqueue: () => rmsNorm({ x, gate, weight, eps: 1e-6, gateOrder: 'after', gateActivation: 'silu' }),
    };
  },
  (make) => {
    const x = make.halves([T, 7168]);
    return {
      name: `gatedActivation [${T}, 2 x 3584]`,
      work: gatedActivationCost(T * 3584, 2),
      enqueue: () => gatedActivation({ x, activation: 'silu' }),
    };
  },
  (make) => {
    const C = 6144;
    const [x, weight] = [make.halves([T, C]), make.floats([C, 4])];
    const sequences = make.own(uniformSequences(1, T, make.device));
    return {
      name: `causalConv [${T}, ${C}], 4 taps`,
      work: causalConvCost({ N: 1, T, C, W: 4, width: 2 }),
      enqueue: () => causalConv({ x, weight, sequences, activation: 'silu' }),
    };
  },
];

/** Made one by one, so that only one holds memory. */
export const gpuCases: readonly Make[] = [
  ...shapes.map(([name, K, N]) => product(8192, name, K, N, 'bfloat16')),
  ...([1, 4, 16] as const).flatMap((rows) =>
    shapes.slice(0, 4).map(([name, K, N]) => product(rows, name, K, N, 'bfloat16')),
  ),
  product(1, 'head', 1024, 248_320, 'bfloat16'),
  product(1, 'head', 1024, 248_320, 'int8'),
  ...mechanisms.map((one) => mechanismCase(one, 1, 8192, 16)),
  ...mechanisms
    .slice(0, 6)
    .flatMap((one) => [mechanismCase(one, 1, 1, 32), mechanismCase(one, 128, 1, 32), stepsCase(one, 32, 200, 64)]),
  softmax(1, 8192, 0),
  softmax(1, 4096, 28_672),
  softmax(1, 1, 1024),
  softmax(1, 1, 131_072),
  softmax(32, 1, 8192),
  sampling(1, 248_320, { temperature: 0, topP: 1 }),
  sampling(1, 248_320, { temperature: 0.7, topP: 0.9 }),
  sampling(128, 32_768, { temperature: 0.7, topP: 0.9 }),
  ...rowOps(8192),
  ...rowOps(1).slice(0, 3),
];

/** A case with its tensors on the device. */
export function makeCase(make: Make, device: DeviceName): GpuCase {
  const maker = new Maker(device);
  try {
    return { ...make(maker), dispose: () => maker.dispose() };
  } catch (error) {
    maker.dispose();
    throw error;
  }
}
