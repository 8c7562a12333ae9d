// The op cases of `linattn bench`, at the shapes of Qwen3.5-0.8B, with work as each op's cost function counts it.
import { causalConv, causalConvCost } from '../ops/causal-conv';
import { gatedActivation, gatedActivationCost } from '../ops/gated-activation';
import { linearAttention, linearAttentionCost } from '../ops/linear-attention';
import { matmul, matmulCost } from '../ops/matmul';
import { rmsNorm, rmsNormCost } from '../ops/rms-norm';
import { uniformSequences } from '../ops/sequences';
import { Weight, type WeightDType } from '../ops/weight';
import type { DType } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import { fillWeight, someValues } from './bench-data';
import type { Case } from './bench-timing';

const T = 512;

const filled = (shape: readonly number[], scale = 1): Tensor<'float32'> =>
  Tensor.from(someValues(shape, scale), { dtype: 'float32', shape });

const filledWeight = (N: number, K: number, dtype: WeightDType): Weight =>
  fillWeight(Weight.zeros([N, K], dtype), filled([Math.min(N, 1024), K]));

/** The products of Qwen3.5-0.8B. */
export const shapes: [name: string, K: number, N: number][] = [
  ['q k v z b a', 1024, 8224],
  ['GDN out', 2048, 1024],
  ['gate up', 1024, 7168],
  ['down', 3584, 1024],
  ['q k v gate', 1024, 5120],
];

function matmulCase(name: string, K: number, N: number, rows: number, dtype: WeightDType, read: boolean): Case {
  const weight = filledWeight(N, K, dtype);
  const x = filled([rows, K]);
  return {
    name: `matmul ${dtype} ${name} [${rows}, ${K}] x [${N}]`,
    ceiling: read ? 'read' : dtype === 'bfloat16' ? 'dotBFloat16' : 'multiplyAdd',
    work: matmulCost(rows, weight, 4),
    enqueue: () => matmul({ x, weight }),
    repeat: read ? 1 : 4,
    dispose: () => {
      weight.dispose();
      x.dispose();
    },
  };
}

/** Delta rule, K = V = 128, 16 heads: a Gated DeltaNet layer of the 0.8B shape. */
export function linearAttentionCase(tokens: number): Case {
  const [H, K, V] = [16, 128, 128];
  const tensors = {
    q: filled([tokens, H, K]),
    k: filled([tokens, H, K], K ** -0.5),
    v: filled([tokens, H, V]),
    g: filled([tokens, H], -0.1),
    beta: filled([tokens, H]),
    state: Tensor.zeros({ dtype: 'float32', shape: [2, H, V, K] }),
  };
  const sequences = uniformSequences(1, tokens);
  const { q, k, v, g, beta, state } = tensors;
  return {
    name: `linearAttention delta, ${H} heads, K = V = 128, ${tokens} tokens`,
    ceiling: tokens === 1 ? 'read' : 'multiplyAdd',
    work: linearAttentionCost({ N: 1, T: tokens, Hq: H, Hk: H, Hv: H, K, V, rule: 'delta', decay: 'token', width: 4 }),
    enqueue: () =>
      linearAttention({ q, k, v, rule: { name: 'delta', beta }, decay: { per: 'token', g }, state, sequences }).out,
    repeat: tokens === 1 ? 20 : 1,
    dispose: () => {
      for (const tensor of Object.values(tensors)) tensor.dispose();
      sequences.dispose();
    },
  };
}

function streamCases(): (() => Case)[] {
  const C = 6144;
  const of = (name: string, work: Case['work'], tensors: Tensor<DType>[], enqueue: () => Tensor): Case => ({
    name,
    ceiling: 'read',
    work,
    enqueue,
    repeat: 10,
    dispose: () => {
      for (const tensor of tensors) tensor.dispose();
    },
  });
  return [
    () => {
      const [x, weight] = [filled([T, 1024]), filled([1024])];
      return of('rmsNorm [512, 1024]', rmsNormCost(T * 1024, 4), [x, weight], () => rmsNorm({ x, weight, eps: 1e-6 }));
    },
    () => {
      const x = filled([T, 7168]);
      const work = gatedActivationCost(T * 3584, 4);
      return of('gatedActivation [512, 2 x 3584]', work, [x], () => gatedActivation({ x, activation: 'silu' }));
    },
    () => {
      const [x, weight] = [filled([T, C]), filled([C, 4])];
      const sequences = uniformSequences(1, T);
      const work = causalConvCost({ N: 1, T, C, W: 4, width: 4 });
      const made = of(`causalConv [512, ${C}], 4 taps`, work, [x, weight], () =>
        causalConv({ x, weight, sequences, activation: 'silu' }),
      );
      return { ...made, dispose: () => [made, sequences].forEach((one) => void one.dispose()) };
    },
  ];
}

/** Made one by one, so that only one holds memory. */
export const opCases: readonly (() => Case)[] = [
  ...(['float32', 'bfloat16'] as const).flatMap((dtype) =>
    shapes.map(
      ([name, K, N]) =>
        () =>
          matmulCase(name, K, N, T, dtype, false),
    ),
  ),
  ...(['bfloat16', 'float32', 'int8'] as const).map(
    (dtype) => () =>
      matmulCase('decode', 4096, dtype === 'bfloat16' ? 65536 : dtype === 'int8' ? 131072 : 32768, 1, dtype, true),
  ),
  () => linearAttentionCase(T),
  () => linearAttentionCase(1),
  ...streamCases(),
];

/** The products of a Gated DeltaNet layer around its linear attention, in bfloat16. */
export const layerProducts: readonly (() => Case)[] = [shapes[0]!, shapes[1]!].map(
  ([name, K, N]) =>
    () =>
      matmulCase(name, K, N, T, 'bfloat16', false),
);
