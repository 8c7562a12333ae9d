// sample: the next token of each sequence from its logits, chosen on the device.
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type Sampling, samplingRow, tokenWords } from './sampling-table';

const op = defineOp('sample', {
  logits: 'in',
  rows: 'in',
  positions: 'in',
  params: 'in',
  intParams: 'in',
  seen: 'optional',
  allowed: 'optional',
  sampled: 'out',
});

export interface Sampled {
  readonly sampled: Tensor<'int32'>;
  readonly token: Tensor<'int32'>;
  readonly logprob: Tensor<'float32'>;
}

/**
 * For each row, in the order of Hugging Face's generate: repetition penalty over the tokens of `seen`, tokens outside
 * `allowed` dropped, division by the temperature (all float32), top-k (ties of the k-th score stay), top-p, min-p, and a
 * draw by the inverse of the cumulative distribution in the order of ids, with u = 53 bits of Philox4x32-10: key = seed,
 * counter = (position, 0, 0, 0), words 0 and 1. So the position is all the state of the random numbers, and neither
 * the slot, the company in the batch nor the number of threads changes a token. Of equal scores at the edge of top-p the
 * lowest ids stay.
 * @param logits float32 [N, vocab] (free row stride); -inf leaves a token out, NaN and +inf are errors
 * @param rows int32 [N], each -1 (token -1, logprob 0) or a slot
 * @param positions int32 [N], the position that the token will have
 * @param params float32 [slots, 8] and
 * @param intParams int32 [slots, 8], rows of `encodeSampling`
 * @param seen int32 [slots, ceil(vocab / 32)], kept by `markSeen`; without it there is no repetition penalty
 * @param allowed int32 [slots, ceil(vocab / 32)], for slots with `restricted`
 * @returns token int32 [N]; logprob float32 [N], log-softmax of the unmodified logits at the token; both are parts of
 *   sampled int32 [2, N]: token, and the bits of logprob
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE; when run ERR_ARGUMENT for a slot out of range, and for logits with NaN or
 *   +inf or without a token to choose, naming the row
 */
export function sample(input: {
  logits: Tensor<'float32'>;
  rows: Tensor<'int32'>;
  positions: Tensor<'int32'>;
  params: Tensor<'float32'>;
  intParams: Tensor<'int32'>;
  seen?: Tensor<'int32'> | undefined;
  allowed?: Tensor<'int32'> | undefined;
}): Sampled {
  const { logits, rows, positions, params, intParams, seen, allowed } = op.input(input);
  const [N, vocab] = op.shape('logits', logits, ['N', 'vocab']) as [number, number];
  op.expect('logits', logits, 'float32', { N, vocab });
  op.expect('rows', rows, 'int32', { N });
  op.expect('positions', positions, 'int32', { N });
  const [slots] = op.shape('params', params, ['slots', 'values']) as [number];
  op.expect('params', params, 'float32', { slots, values: samplingRow });
  op.expect('intParams', intParams, 'int32', { slots, values: samplingRow });
  const words = { slots, words: tokenWords(vocab) };
  if (seen !== undefined) op.expect('seen', seen, 'int32', words);
  if (allowed !== undefined) op.expect('allowed', allowed, 'int32', words);
  const sampled = op.output(logits, 'int32', [2, N]);
  op.run({ logits, rows, positions, params, intParams, seen, allowed, sampled });
  return { sampled, token: sampled.view([N], 0, 1), logprob: sampled.view([N], N, 1, 'float32') };
}

export interface Distribution {
  /** By id; 0 where a filter took the token away. */
  probabilities: Float64Array;
  /** log-softmax of the unmodified logits. */
  logprobs: Float64Array;
}

/** float64 oracle: the distribution that one row is drawn from. Scores are rounded to float32, where ties are told. */
export function sampleReference(
  logits: ArrayLike<number>,
  { temperature = 1, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, restricted = false }: Sampling,
  { seen, allowed }: { seen?: ReadonlySet<number>; allowed?: ReadonlySet<number> } = {},
): Distribution {
  const penalty = Math.fround(repetitionPenalty);
  const divisor = temperature > 0 ? Math.fround(temperature) : 1;
  const scores = Array.from(logits, (logit, id) => {
    if (restricted && allowed !== undefined && !allowed.has(id)) return -Infinity;
    const penalised = seen?.has(id) ? Math.fround(logit < 0 ? logit * penalty : logit / penalty) : logit;
    return Math.fround(penalised / divisor);
  });
  const descending = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b);
  const greatest = scores[descending[0]!]!;
  const weights = scores.map((score) => Math.exp(score - greatest));
  let kept = descending;
  if (temperature === 0) {
    kept = kept.slice(0, 1);
  } else {
    if (topK > 0 && topK < kept.length) kept = kept.filter((id) => scores[id]! >= scores[descending[topK - 1]!]!);
    const total = kept.reduce((sum, id) => sum + weights[id]!, 0);
    let before = 0;
    if (topP < 1) {
      kept = kept.filter((id, rank) => {
        const keep = rank === 0 || before < Math.fround(topP) * total;
        before += weights[id]!;
        return keep;
      });
    }
    kept = kept.filter((id) => weights[id]! >= Math.fround(minP));
  }
  const probabilities = new Float64Array(scores.length);
  const mass = kept.reduce((sum, id) => sum + weights[id]!, 0);
  for (const id of kept) probabilities[id] = weights[id]! / mass;
  const top = Array.from(logits).reduce((a, b) => Math.max(a, b));
  const log = top + Math.log(Array.from(logits).reduce((sum, logit) => sum + Math.exp(logit - top), 0));
  return { probabilities, logprobs: Float64Array.from(logits, (logit) => logit - log) };
}

/** Reads the logits; what is kept between the filters stays in near memory. About 40 operations a logit. */
export const sampleCost = (rows: number, vocab: number) => ({ bytes: 4 * rows * vocab, flops: 40 * rows * vocab });
