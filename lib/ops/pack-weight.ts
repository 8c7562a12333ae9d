// packWeight: rows of a matrix, as a checkpoint has them, into a Weight. Several projections become one weight by packing
// each at its row.
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Weight, type WeightDType, weightFields } from './weight';

const op = defineOp('packWeight', { source: 'in', weights: 'inout', scales: 'inout', ...weightFields, row: 'number' });

/**
 * Rows [row, row + n) of the weight become those of `source`, rounded to the weight's dtype: to nearest even, for float16
 * to infinity beyond 65504. int8 is symmetric: scale = max |w| / 127 of each output, or of each group of its inputs. A
 * group with NaN or infinity gets the scale NaN; one whose values all are below 2^-119 becomes 0.
 *
 * A command should not take long: about 4 million values a call.
 * @param source float32, bfloat16 or float16 [n, K] (free row stride)
 * @param weight [N, K]
 * @param row first row of the weight to be written
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function packWeight(input: { source: Tensor<Float>; weight: Weight; row?: number }): void {
  const { source, weight, row = 0 } = op.input(input);
  const [N, K] = op.instance('weight', weight, Weight).shape;
  op.dtype('source', source, floats);
  const [n] = op.shape('source', source, ['n', 'K']) as [number, number];
  op.expect('source', source, source.dtype, { n, K });
  op.check(
    Number.isSafeInteger(row) && row >= 0 && row + n <= N,
    `rows [row, row + n) must be in [0, N = ${N}), got row = ${row}, n = ${n}`,
  );
  op.run({ source, ...weight.record, row });
}

/**
 * A new weight of one matrix.
 * @param source float32, bfloat16 or float16 [N, K] (free row stride)
 * @param options as of Weight.zeros
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function weightFrom(source: Tensor<Float>, dtype: WeightDType, options: { group?: number } = {}): Weight {
  const [N, K] = op.shape('source', source, ['N', 'K']) as [number, number];
  op.dtype('source', source, floats);
  op.input(options, 'options');
  const weight = Weight.zeros([N, K], dtype, { ...options, device: source.device });
  packWeight({ source, weight });
  return weight;
}

/** What the weight holds of a source: float64 oracle, exact values. Float sources must be rounded already. */
export function packWeightReference(source: NdArray, dtype: WeightDType, group = 0): NdArray {
  if (dtype !== 'int8') return source;
  const [N, K] = source.shape as [number, number];
  const out = nd(source.shape);
  const width = group === 0 ? K : group;
  for (let n = 0; n < N; n++) {
    for (let begin = 0; begin < K; begin += width) {
      const values = source.data.subarray(n * K + begin, n * K + Math.min(begin + width, K));
      const top = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const scale = top < 2 ** -119 ? 0 : Math.fround(top / 127);
      const inverse = top < 2 ** -119 ? 0 : Math.fround(127 / top);
      values.forEach((value, k) => {
        out.data[n * K + begin + k] = scale * (roundToEven(Math.fround(value * inverse)) + 0); // no -0
      });
    }
  }
  return out;
}

function roundToEven(x: number): number {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** Reads the source, writes as many values. */
export const packWeightCost = (values: number, bytesOfSource: number, bytesOfWeight: number) => ({
  bytes: values * (bytesOfSource + bytesOfWeight),
  flops: 0,
});
