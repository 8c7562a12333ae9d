// A learned bias by distance, as softmaxAttention takes it: a value for each head and number of tokens back.
import { checkOptions, linattnError, shown } from '../errors';

/** Of a table: a gigabyte. */
const mostValues = 2 ** 28;

const fail = (message: string): never => {
  throw linattnError('ERR_ARGUMENT', `t5RelativeBias: ${message}`);
};

/** The bucket of a key so far back. Each step is rounded to float32, so that borders fall as in the published code. */
function bucketOf(distance: number, buckets: number, maxDistance: number): number {
  const exact = Math.floor(buckets / 2);
  if (distance < exact) return distance;
  const { fround } = Math;
  const share = fround(fround(Math.log(fround(distance / exact))) / fround(Math.log(maxDistance / exact)));
  return Math.min(buckets - 1, exact + Math.floor(fround(share * (buckets - exact))));
}

/**
 * T5's relative_attention_bias of a causal stack (https://arxiv.org/abs/1910.10683; as Hugging Face transformers
 * models/t5 has it with bidirectional=False) as a table by distance: half of the buckets are one distance each, the
 * others grow by a factor, and the last one holds all from maxDistance on.
 * @param embedding [buckets, heads] by rows, as checkpoints store it
 * @returns [heads, maxDistance + 1] by rows: relativeBias of softmaxAttention
 * @throws LinattnError ERR_ARGUMENT
 */
export function t5RelativeBias(
  embedding: ArrayLike<number>,
  options: { buckets: number; maxDistance: number },
): Float32Array {
  checkOptions('t5RelativeBias', options);
  const { buckets, maxDistance } = options;
  if (!(Number.isSafeInteger(buckets) && buckets >= 2))
    fail(`buckets must be a whole number from 2, got ${shown(buckets)}`);
  const least = Math.floor(buckets / 2) + 1;
  if (!(Number.isSafeInteger(maxDistance) && maxDistance >= least)) {
    fail(`maxDistance must be a whole number from ${least} with ${buckets} buckets, got ${shown(maxDistance)}`);
  }
  const heads = (embedding?.length ?? 0) / buckets;
  if (!(Number.isInteger(heads) && heads > 0)) {
    fail(`embedding must be [buckets, heads] with ${buckets} buckets, got ${embedding?.length} values`);
  }
  if (heads * maxDistance >= mostValues)
    fail(`heads x maxDistance must be below ${mostValues}, got ${heads * maxDistance}`);
  const distances = maxDistance + 1;
  const table = new Float32Array(heads * distances);
  for (let distance = 0; distance < distances; distance++) {
    const bucket = bucketOf(distance, buckets, maxDistance);
    for (let h = 0; h < heads; h++) table[h * distances + distance] = embedding[bucket * heads + h]!;
  }
  return table;
}
