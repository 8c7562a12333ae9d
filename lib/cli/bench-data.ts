// What bench cases compute with: values that are not zeros (zeros are faster than data), the same on every run.
import { packWeight } from '../ops/pack-weight';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';

/** Token ids of any vocabulary, not all the same. */
export const someTokens = (count: number, vocabulary: number, seed = 0): Int32Array =>
  Int32Array.from({ length: count }, (_, i) => ((i + seed) * 7919) % vocabulary);

/** Values in offset + scale * [-0.5, 0.5). */
export function someValues(shape: readonly number[], scale = 1, offset = 0): Float32Array {
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
  let state = 1;
  for (let i = 0; i < data.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = scale * (state / 2 ** 32 - 0.5) + offset;
  }
  return data;
}

/** Rows of `source` (float32 [block, K], disposed of) again and again, until the weight is full. */
export function fillWeight(weight: Weight, source: Tensor<'float32'>): Weight {
  const [N, K] = weight.shape;
  const block = source.shape[0]!;
  for (let row = 0; row < N; row += block) {
    const part = source.view([Math.min(block, N - row), K], 0, K);
    packWeight({ source: part, weight, row });
    part.dispose();
  }
  source.dispose();
  return weight;
}
