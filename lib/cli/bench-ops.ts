// The op cases of `linattn bench`, at the shapes of Qwen3.5-0.8B, with work as each op's cost function counts it.
import { causalConv, causalConvCost } from '../ops/causal-conv';
import { gatedActivation, gatedActivationCost } from '../ops/gated-activation';
import { linearAttention, linearAttentionCost } from '../ops/linear-attention';
import { matmul, matmulCost } from '../ops/matmul';
import { packWeight } from '../ops/pack-weight';
import { rmsNorm, rmsNormCost } from '../ops/rms-norm';
import { uniformSequences } from '../ops/sequences';
import { Weight, type WeightDType } from '../ops/weight';
import type { DType } from '../tensor/dtype';
import { Tensor } from '../tensor/tensor';
import type { Case } from './bench-timing';

const T = 512;

/** Values in [-0.5, 0.5) that are not zeros: zeros are faster than data. */
function filled(shape: readonly number[], scale = 1): Tensor<'float32'> {
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
  let state = 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = scale * (state / 2 ** 32 - 0.5);
  }
  return Tensor.from(data, { dtype: 'float32', shape });
}

/** A weight of real values: one block of rows, again and again. */
function filledWeight(N: number, K: number, dtype: WeightDType): Weight {
  const weight = Weight.zeros([N, K], dtype);
  const block = Math.min(N, 1024);
  const source = filled([block, K]);
  for (let row = 0; row < N; row += block) {
    const part = source.view([Math.min(block, N - row), K], 0, K);
    packWeight({ source: part, weight, row });
    part.dispose();
  }
  source.dispose();
  return weight;
}

const shapes: [name: string, K: number, N: number][] = [
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
