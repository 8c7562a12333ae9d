// softmaxAttention: causal softmax attention over a paged cache of keys and values, of which it first writes the new ones.
import { shown } from '../errors';
import type { DType } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Sequences, sequenceFields } from './sequences';

const op = defineOp('softmaxAttention', {
  q: 'in',
  k: 'in',
  v: 'in',
  pages: 'inout',
  pageTable: 'in',
  tableRows: 'in',
  sinks: 'optional',
  alibiSlopes: 'optional',
  relativeBias: 'optional',
  out: 'out',
  rowMax: 'out',
  rowSum: 'out',
  ...sequenceFields,
  scale: 'number',
  window: 'number',
  sinkTokens: 'number',
});

export interface SoftmaxAttentionInput<D extends DType> {
  /** float32, bfloat16 or float16 [T, Hq, D] (free row stride); Hq is a multiple of Hkv. */
  q: Tensor<D>;
  /** float32, bfloat16 or float16 [T, Hkv, D] (free row stride): the new keys and values. */
  k: Tensor;
  v: Tensor;
  /**
   * float32, bfloat16 or float16 [pages, 2, pageTokens, Hkv, D] (free page stride), keys before values; written in place.
   * Keys and values are read as they are stored here, those of this call too.
   */
  pages: Tensor;
  /**
   * int32 [rows, tablePages] (free row stride): tokens of logical page L = floor(position / pageTokens) lie in page
   * pageTable[row][L % tablePages]. So with a window a row may be a ring; it then covers at least the window, the tokens
   * of the call, and a page for each end that is not on a border. With sinkTokens the first ceil(sinkTokens / pageTokens)
   * pages have the first entries for themselves, and the ring is the rest of the row: L lies there at
   * (L - sinkPages) % (tablePages - sinkPages).
   */
  pageTable: Tensor<'int32'>;
  /** int32 [N]: the table row of each sequence; -1 = drop it: nothing is written, its output is 0. */
  tableRows: Tensor<'int32'>;
  /** `positions` are the tokens already in the cache; slots are not used. */
  sequences: Sequences;
  scale: number;
  /** A token at i sees the keys i - window < j <= i; 0 (the default) = every j <= i. */
  window?: number;
  /**
   * The first keys of a sequence, which every later token sees besides its window: the attention sinks of StreamingLLM
   * (https://arxiv.org/abs/2309.17453). Keys keep the positions that they were rotated for, as in models trained with
   * this mask. 0 is the default.
   */
  sinkTokens?: number;
  /** float32 [Hq]: e^sink is added to the denominator (GPT-OSS). */
  sinks?: Tensor<'float32'> | undefined;
  /** float32 [Hq]: -slope * (i - j) is added to a score. */
  alibiSlopes?: Tensor<'float32'> | undefined;
  /**
   * float32 [Hq, R] (free row stride), learned: relativeBias[h][min(i - j, R - 1)] is added to a score, so that the last
   * one is that of all keys further back. T5's buckets as such a table: t5RelativeBias.
   */
  relativeBias?: Tensor<'float32'> | undefined;
  /** Also return rowMax and rowSum. */
  rowStatistics?: boolean;
}

export interface SoftmaxAttentionOutput<D extends DType> {
  /** [T, Hq, D] as q */
  out: Tensor<D>;
  /** float32 [T, Hq]: the largest score of the row, or its sink; -Infinity for a dropped one. */
  rowMax?: Tensor<'float32'>;
  /** float32 [T, Hq]: sum of e^(score - rowMax), the sink's with it; 0 for a dropped one. */
  rowSum?: Tensor<'float32'>;
}

/**
 * out[i] = sum_j e^(s_ij) v_j / (sum_j e^(s_ij) + e^sink), over the visible j, with
 * s_ij = scale q_i.k_j - slope (i - j) + relativeBias[min(i - j, R - 1)].
 * The query heads h of a group of Hq / Hkv read key head floor(h Hkv / Hq). On the CPU a row has the same bits however
 * the prompt is sliced, in any batch, on any number of threads, and in prefill as in decode.
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; ERR_UNSUPPORTED when v is not as wide as k. When it runs:
 * ERR_ARGUMENT for a table row, page or offset out of range, a page that is -1 where a token is read or written, and
 * more visible tokens than the table has pages for. On the CPU nothing is written then.
 */
export function softmaxAttention<D extends DType>(input: SoftmaxAttentionInput<D>): SoftmaxAttentionOutput<D> {
  const { q, k, v, pages, pageTable, tableRows, sequences, sinks, alibiSlopes, relativeBias } = op.input(input);
  const { scale, window = 0, sinkTokens = 0 } = input;
  if ((input as { cachePositions?: unknown }).cachePositions !== undefined) {
    throw op.error(
      'ERR_UNSUPPORTED',
      'positions counted inside the cache (cachePositions) take a second query for the sinks, turned for its place in ' +
        'the cache; here sinks are as far back as they were in the text',
    );
  }
  const [T, Hq, D] = op.shape('q', q, ['T', 'Hq', 'D']) as [number, number, number];
  const Hkv = op.shape('k', k, ['T', 'Hkv', 'D'])[1]!;
  const Dv = op.shape('v', v, ['T', 'Hkv', 'D'])[2]!;
  if (Dv !== D) throw op.error('ERR_UNSUPPORTED', `v must be as wide as q and k, ${D}, got ${Dv}`);
  const floats = ['float32', 'bfloat16', 'float16'] as const;
  for (const [name, tensor] of Object.entries({ q, k, v, pages })) op.dtype(name, tensor, floats);
  op.check(Hkv > 0 && Hq % Hkv === 0, `q must have a multiple of Hkv = ${Hkv} heads, got ${Hq}`);
  op.expect('k', k, k.dtype, { T, Hkv, D });
  op.expect('v', v, v.dtype, { T, Hkv, D });
  const [P, , pageTokens] = op.shape('pages', pages, ['pages', 'parts', 'pageTokens', 'Hkv', 'D']);
  op.expect('pages', pages, pages.dtype, { pages: P!, parts: 2, pageTokens: pageTokens!, Hkv, D });
  op.check(pageTokens! > 0, 'pages must hold at least one token each');
  const [, tablePages] = op.shape('pageTable', pageTable, ['rows', 'tablePages']);
  op.dtype('pageTable', pageTable, ['int32']);
  op.check(tablePages! > 0, 'pageTable must have at least one page a row');
  op.expect('tableRows', tableRows, 'int32', { N: op.instance('sequences', sequences, Sequences).rows });
  op.check(sequences.tokens === T, `sequences must have T = ${T} tokens, got ${sequences.tokens}`);
  if (sinks !== undefined) op.expect('sinks', sinks, 'float32', { Hq });
  if (alibiSlopes !== undefined) op.expect('alibiSlopes', alibiSlopes, 'float32', { Hq });
  if (relativeBias !== undefined) {
    const R = op.shape('relativeBias', relativeBias, ['Hq', 'R'])[1]!;
    op.expect('relativeBias', relativeBias, 'float32', { Hq, R });
    op.check(R > 0, 'relativeBias must have at least one distance');
  }
  op.check(Number.isFinite(scale), `scale must be a finite number, got ${shown(scale)}`);
  const whole = Number.isSafeInteger(window) && window >= 0 && window < 2 ** 31;
  op.check(whole, `window must be a whole number from 0, got ${shown(window)}`);
  op.check(
    Number.isSafeInteger(sinkTokens) && sinkTokens >= 0 && (sinkTokens === 0 || window > 0) && sinkTokens < 2 ** 31,
    `sinkTokens must be a whole number from 0, and 0 without a window, got ${shown(sinkTokens)} with window ${shown(window)}`,
  );
  const sinkPages = Math.ceil(sinkTokens / pageTokens!);
  const fits = sinkPages < tablePages!;
  op.check(fits, `pageTable must have more than the ${sinkPages} pages of sinkTokens a row, got ${tablePages}`);
  const out = op.output(q, q.dtype, [T, Hq, D]);
  const { rowStatistics = false } = input;
  op.flag('rowStatistics', rowStatistics);
  const statistic = () => (rowStatistics ? op.output(q, 'float32', [T, Hq]) : undefined);
  const rowMax = statistic();
  const rowSum = statistic();
  const tensors = { q, k, v, pages, pageTable, tableRows, sinks, alibiSlopes, relativeBias, out, rowMax, rowSum };
  op.run({ ...tensors, ...sequences.record, scale, window, sinkTokens });
  return rowMax === undefined || rowSum === undefined ? { out } : { out, rowMax, rowSum };
}

/**
 * float64 oracle on plain arrays; `pages` is updated, each value through `store`, the rounding of its dtype. `numbers`
 * holds every value on the way: with Float32Array it is the plain formula in float32.
 */
export function softmaxAttentionReference(
  {
    q,
    k,
    v,
    pages,
    sinks,
    alibiSlopes,
    relativeBias,
  }: Record<'q' | 'k' | 'v' | 'pages', NdArray> & {
    sinks?: NdArray | undefined;
    alibiSlopes?: NdArray | undefined;
    relativeBias?: NdArray | undefined;
  },
  { offsets, positions }: { offsets: readonly number[]; positions: readonly number[] },
  { pageTable, tableRows }: { pageTable: readonly (readonly number[])[]; tableRows: readonly number[] },
  options: {
    scale: number;
    window?: number;
    sinkTokens?: number;
    store?: (x: number) => number;
    numbers?: Float64ArrayConstructor | Float32ArrayConstructor;
  },
): { out: NdArray; rowMax: NdArray; rowSum: NdArray } {
  const { scale, window = 0, sinkTokens = 0, store = Number, numbers: Numbers = Float64Array } = options;
  const [T, Hq, D] = q.shape as [number, number, number];
  const [, , pageTokens, Hkv] = pages.shape as [number, number, number, number, number];
  const R = relativeBias?.shape[1] ?? 1;
  const sinkPages = Math.ceil(sinkTokens / pageTokens);
  const result = { out: nd(q.shape), rowMax: nd([T, Hq]), rowSum: nd([T, Hq]) };
  result.rowMax.data.fill(Number.NEGATIVE_INFINITY);
  const dot = new Numbers(1);
  const sum = new Numbers(1);
  tableRows.forEach((tableRow, n) => {
    if (tableRow < 0) return;
    const table = pageTable[tableRow]!;
    const ring = table.length - sinkPages;
    const first = offsets[n]!;
    const count = offsets[n + 1]! - first;
    // Where the values (part 1) or keys (part 0) of a head lie for a position of this sequence.
    const place = (part: number, position: number, head: number): number => {
      const logical = Math.floor(position / pageTokens);
      const page = table[logical < sinkPages ? logical : sinkPages + ((logical - sinkPages) % ring)]!;
      return (((page * 2 + part) * pageTokens + (position % pageTokens)) * Hkv + head) * D;
    };
    for (let t = 0; t < count; t++) {
      for (const [part, source] of [k, v].entries()) {
        const stored = source.data.subarray((first + t) * Hkv * D, (first + t + 1) * Hkv * D).map(store);
        pages.data.set(stored, place(part, positions[n]! + t, 0));
      }
    }
    for (let t = 0; t < count; t++) {
      const position = positions[n]! + t;
      const oldest = window > 0 ? Math.max(0, position - window + 1) : 0;
      for (let h = 0; h < Hq; h++) {
        const row = (first + t) * Hq + h;
        const head = Math.floor((h * Hkv) / Hq);
        const behind = Math.min(sinkTokens, oldest);
        const visible = behind + position - oldest + 1;
        const scores = new Numbers(visible);
        const positionOf = (i: number): number => (i < behind ? i : oldest + i - behind);
        for (let i = 0; i < visible; i++) {
          const key = place(0, positionOf(i), head);
          dot[0] = 0;
          for (let d = 0; d < D; d++) dot[0]! += q.data[row * D + d]! * pages.data[key + d]!;
          const apart = position - positionOf(i);
          scores[i] = scale * dot[0]! - (alibiSlopes?.data[h] ?? 0) * apart;
          if (relativeBias !== undefined) scores[i]! += relativeBias.data[h * R + Math.min(apart, R - 1)]!;
        }
        let max = sinks?.data[h] ?? Number.NEGATIVE_INFINITY;
        for (const score of scores) max = Math.max(max, score);
        const out = new Numbers(D);
        const weights = scores.map((score) => score - max).map(Math.exp);
        sum[0] = (sinks?.data[h] ?? Number.NEGATIVE_INFINITY) - max;
        sum[0] = Math.exp(sum[0]!);
        for (let i = 0; i < visible; i++) {
          const value = place(1, positionOf(i), head);
          const weight = weights[i]!;
          sum[0]! += weight;
          for (let d = 0; d < D; d++) out[d]! += weight * pages.data[value + d]!;
        }
        result.out.data.set(
          out.map((value) => value / sum[0]!),
          row * D,
        );
        result.rowMax.data[row] = max;
        result.rowSum.data[row] = sum[0]!;
      }
    }
  });
  return result;
}

/**
 * One sequence: `tokens` new ones after `position` in the cache. The visible part of the cache is counted once. `scores`:
 * of all heads; the products alone are 4 width flops of each.
 */
export function softmaxAttentionCost(
  sizes: {
    tokens: number;
    position: number;
    heads: number;
    kvHeads: number;
    width: number;
    window?: number;
    sinkTokens?: number;
  },
  { bytesPerValue, bytesPerCached }: { bytesPerValue: number; bytesPerCached: number },
): { bytes: number; flops: number; scores: number } {
  const { tokens, position, heads, kvHeads, width, window = 0, sinkTokens = 0 } = sizes;
  const limit = window > 0 ? window + sinkTokens : Number.POSITIVE_INFINITY;
  let seen = 0;
  for (let t = 0; t < tokens; t++) seen += Math.min(position + t + 1, limit);
  const scores = heads * seen;
  const visible = Math.min(position + tokens, limit + tokens - 1);
  return {
    bytes: 2 * width * ((heads + kvHeads) * tokens * bytesPerValue + kvHeads * (visible + tokens) * bytesPerCached),
    flops: scores * (4 * width + 25),
    scores,
  };
}
