// matmul: the product of a linear layer, for one row of activations or many.
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { productPath } from './product-path';
import { type NdArray, nd } from './reference';
import { Weight, weightFields } from './weight';

const op = defineOp('matmul', {
  x: 'in',
  weights: 'in',
  scales: 'optional',
  bias: 'optional',
  out: 'out',
  ...weightFields,
  path: 'number',
});

export interface MatmulInput<D extends Float> {
  /** float32, bfloat16 or float16 [T, K] (free row stride). */
  x: Tensor<D>;
  /** [N, K] */
  weight: Weight;
  /** float32 [N] */
  bias?: Tensor<'float32'> | undefined;
}

/**
 * out = x W' + bias, with sums in float32. What is multiplied, by the weight's dtype:
 * - float32: float32.
 * - bfloat16: the activations too are rounded to bfloat16, products are exact; instructions for pairs of bfloat16 where
 *   the processor has them (they take subnormals for 0).
 * - float16: the weights as float32, with float32 activations.
 * - int8: the whole numbers as float32, with float32 activations; the sum of an output, or of a group, is then scaled.
 *
 * On the cpu the sum of an output runs over k in rising order in one chain, so a row's result depends neither on the other
 * rows nor on the number of threads.
 * @returns [T, N], as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE
 */
export function matmul<D extends Float>(input: MatmulInput<D>): Tensor<D> {
  const { x, weight, bias } = op.input(input);
  const [N, K] = op.instance('weight', weight, Weight).shape;
  op.dtype('x', x, floats);
  const [T] = op.shape('x', x, ['T', 'K']) as [number, number];
  op.expect('x', x, x.dtype, { T, K });
  if (bias !== undefined) op.expect('bias', bias, 'float32', { N });
  const out = op.output(x, x.dtype, [T, N]);
  op.run({ x, ...weight.record, bias, out, path: productPath() });
  return out;
}

/** float64 oracle of x [T, K] and the values that the weight [N, K] holds. */
export function matmulReference(x: NdArray, weight: NdArray, bias?: NdArray): NdArray {
  const [T, K] = x.shape as [number, number];
  const N = weight.shape[0]!;
  const out = nd([T, N]);
  for (let t = 0; t < T; t++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += x.data[t * K + k]! * weight.data[n * K + k]!;
      out.data[t * N + n] = sum + (bias?.data[n] ?? 0);
    }
  }
  return out;
}

/** Reads x and the weight once, writes out. */
export const matmulCost = (rows: number, weight: Weight, bytesPerValue: number) => ({
  bytes: weight.byteLength + rows * (weight.shape[0] + weight.shape[1]) * bytesPerValue,
  flops: 2 * rows * weight.shape[0] * weight.shape[1],
});
