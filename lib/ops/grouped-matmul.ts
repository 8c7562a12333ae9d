// groupedMatmul: the products of a mixture of experts, each row with the weights of the experts that it goes to.
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Weight, weightFields } from './weight';

const op = defineOp('groupedMatmul', {
  x: 'in',
  ids: 'in',
  weights: 'in',
  scales: 'optional',
  out: 'out',
  ...weightFields,
  experts: 'number',
});

export interface GroupedMatmulInput<D extends Float> {
  /** float32, bfloat16 or float16 [T, K], a row for all experts of a token, or [T k, K], one for each (free row stride). */
  x: Tensor<D>;
  /** int32 [T, k], of experts: another than [0, experts) is ERR_ARGUMENT when the command runs. */
  ids: Tensor<'int32'>;
  /** [experts * N, K], one expert after the other; N is a multiple of 32. */
  weight: Weight;
  experts: number;
}

/**
 * out[t k + j] = x[t] or x[t k + j], times the weight of expert ids[t, j]. What is multiplied and in which order sums run
 * is as of matmul, so on the CPU a row has the same bits whatever rows share its expert.
 * @returns [T k, N], as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function groupedMatmul<D extends Float>(input: GroupedMatmulInput<D>): Tensor<D> {
  const { x, ids, weight, experts } = op.input(input);
  const [rows, K] = op.instance('weight', weight, Weight).shape;
  op.dtype('x', x, floats);
  const [T, k] = op.shape('ids', ids, ['T', 'k']) as [number, number];
  op.dtype('ids', ids, ['int32']);
  const N = rows / experts;
  const whole = Number.isSafeInteger(experts) && experts > 0 && N % 32 === 0;
  op.check(whole, `weight must have 32, 64, ... outputs for each of ${experts} experts, got ${rows} in all`);
  const [given] = op.shape('x', x, ['T', 'K']) as [number, number];
  op.expect('x', x, x.dtype, given === T ? { T, K } : { 'T k': T * k, K });
  const out = op.output(x, x.dtype, [T * k, N]);
  op.run({ x, ids, ...weight.record, out, experts });
  return out;
}

/** float64 oracle of x, ids [T, k] and the values that the weight [experts N, K] holds. */
export function groupedMatmulReference(x: NdArray, ids: NdArray, weight: NdArray, experts: number): NdArray {
  const [T, k] = ids.shape as [number, number];
  const K = x.shape[1]!;
  const N = weight.shape[0]! / experts;
  const out = nd([T * k, N]);
  for (let i = 0; i < T * k; i++) {
    const row = x.shape[0] === T ? Math.floor(i / k) : i;
    for (let n = 0; n < N; n++) {
      const w = (ids.data[i]! * N + n) * K;
      let sum = 0;
      for (let c = 0; c < K; c++) sum += x.data[row * K + c]! * weight.data[w + c]!;
      out.data[i * N + n] = sum;
    }
  }
  return out;
}

/** Of `pairs` rows and experts: reads the weights of the `used` experts once. */
export const groupedMatmulCost = (
  sizes: { pairs: number; used: number; experts: number },
  weight: Weight,
  bytesPerValue: number,
) => ({
  bytes:
    (weight.byteLength * sizes.used) / sizes.experts +
    sizes.pairs * (weight.shape[0] / sizes.experts + weight.shape[1]) * bytesPerValue,
  flops: (2 * sizes.pairs * weight.shape[0] * weight.shape[1]) / sizes.experts,
});
