// linearAttention of bfloat16 on matrix units, in chunks of 64 tokens, against its float64 reference.
import type { NdArray } from '../../lib/ops/reference';
import { readNd, relativeError, ulp } from './arrays';
import { onCuda } from './device';
import { type Case, type CaseOptions, reference, runCase } from './linear-attention';

/** One head of one sequence. */
export const base: CaseOptions = { dtype: 'bfloat16', K: 64, V: 64, heads: [1, 1, 1], lengths: [130] };
/** Each rule with each decay that the chunks take. */
export const kinds = [
  ['additive', 'none'],
  ['additive', 'head'],
  ['additive', 'token'],
  ['additive', 'channel'],
  ['delta', 'none'],
  ['delta', 'token'],
  ['delta', 'channel'],
  ['lowRank', 'none'],
  ['lowRank', 'token'],
  ['lowRank', 'channel'],
] as const;

const slotsOf = ({ shape, data }: NdArray): NdArray[] => {
  const size = data.length / shape[0]!;
  return [...Array(shape[0]!).keys()].map((slot) => ({
    shape: shape.slice(1),
    data: data.slice(slot * size, (slot + 1) * size),
  }));
};

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);
const toBFloat16 = (value: number): number => {
  float[0] = value;
  word[0] = (word[0]! + 0x7fff + ((word[0]! >>> 16) & 1)) & 0xffff0000;
  return float[0];
};

/**
 * `times` the error of the recurrence with its state rounded to bfloat16 after each token, plus half an ulp: products of
 * matrices take the state, and what is written to it, as bfloat16.
 */
export async function expectCloseInChunks(x: Case, times = 1): Promise<void> {
  const made = runCase(x);
  const exact = reference(x);
  const plain = reference(x, toBFloat16);
  const limit = (of: NdArray, exactly: NdArray) => times * relativeError(of, exactly) + ulp.bfloat16 / 2;
  if (x.call.q) {
    const out = await readNd(made.out!);
    expect(out.shape).toEqual(exact.out.shape);
    expect(relativeError(out, exact.out)).toBeLessThan(limit(plain.out, exact.out));
  }
  if (made.denominator) {
    const error = relativeError(await readNd(made.denominator), exact.denominator);
    expect(error).toBeLessThan(limit(plain.denominator, exact.denominator));
  }
  for (const name of ['state', 'keySum'] as const) {
    if (!made[name]) continue;
    const before = slotsOf(x.call[name]!);
    const expected = slotsOf(exact[name]);
    const rough = slotsOf(plain[name]);
    slotsOf(await readNd(made[name])).forEach((slot, i) => {
      const written = relativeError(expected[i]!, before[i]!) > 0;
      expect(relativeError(slot, expected[i]!)).toBeLessThanOrEqual(written ? limit(rough[i]!, expected[i]!) : 0);
    });
  }
}

/** Whether a GPU takes a case there. */
export const inChunks = ({ options: { dtype, lengths, V }, call: { decay } }: Case): boolean =>
  onCuda && dtype === 'bfloat16' && decay?.per !== 'value' && Math.max(...lengths) > 8 && V % 16 === 0;
