// embedding: rows of a Weight by token id. It reads the packed weight, so a tied output head shares its memory.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Weight, weightFields } from './weight';

const op = defineOp('embedding', {
  ids: 'in',
  weights: 'in',
  scales: 'optional',
  out: 'out',
  ...weightFields,
  rows: 'number',
});

/**
 * out[t] = weight[ids[t]].
 * @param ids int32 [T], each in [0, N): another is ERR_ARGUMENT when the command runs
 * @param weight [N, K]
 * @returns float32 [T, K]
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function embedding(input: { ids: Tensor<'int32'>; weight: Weight }): Tensor<'float32'> {
  const { ids, weight } = op.input(input);
  const [N, K] = op.instance('weight', weight, Weight).shape;
  const [T] = op.shape('ids', ids, ['T']) as [number];
  op.dtype('ids', ids, ['int32']);
  const out = op.output(ids, 'float32', [T, K]);
  op.run({ ids, ...weight.record, out, rows: N });
  return out;
}

/** float64 oracle of the values that the weight [N, K] holds. */
export function embeddingReference(ids: readonly number[], weight: NdArray): NdArray {
  const K = weight.shape[1]!;
  const out = nd([ids.length, K]);
  ids.forEach((id, t) => {
    out.data.set(weight.data.subarray(id * K, (id + 1) * K), t * K);
  });
  return out;
}

/** Reads a row of the weight for each id, writes out. */
export const embeddingCost = (ids: number, weight: Weight) => ({
  bytes: ids * (weight.byteLength / weight.shape[0] + 4 * weight.shape[1]),
  flops: 0,
});
