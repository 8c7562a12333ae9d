// A key-value cache for the tests of softmaxAttention: pages in random order, every value that is not a token's is NaN.
import { type NdArray, nd } from '../../lib/ops/reference';
import { packedSequences } from '../../lib/ops/sequences';
import {
  type SoftmaxAttentionInput,
  type SoftmaxAttentionOutput,
  softmaxAttention,
  softmaxAttentionReference,
} from '../../lib/ops/softmax-attention';
import type { DType } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';
import { rounded, rounding, seeded, tensorOf } from './arrays';

export interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  readonly pageTokens: number;
  readonly tablePages: number;
  readonly window?: number;
  readonly sinkTokens?: number;
  readonly sinks?: boolean;
  readonly alibi?: boolean;
  /** Distances of a learned bias. */
  readonly biasDistances?: number;
  readonly dtype?: 'float32' | 'bfloat16' | 'float16';
  readonly cacheDtype?: 'float32' | 'bfloat16' | 'float16';
}

/** Where the sizes do not matter. */
export const base: Shape = { heads: 2, kvHeads: 1, width: 16, pageTokens: 16, tablePages: 40 };
export const bfloat16: Shape = { ...base, dtype: 'bfloat16', cacheDtype: 'bfloat16' };
export const float16: Shape = { ...base, dtype: 'float16', cacheDtype: 'float16' };

/** Tokens of one sequence, as the tensors of `dtype` hold them. */
export type Prompt = Record<'q' | 'k' | 'v', NdArray>;

export function promptOf(shape: Shape, tokens: number, seed: number): Prompt {
  const { normal } = seeded(seed);
  const dtype = shape.dtype ?? 'float32';
  const make = (heads: number, std: number) => rounded(normal([tokens, heads, shape.width], std), dtype);
  return { q: make(shape.heads, 1.5), k: make(shape.kvHeads, 1), v: make(shape.kvHeads, 1) };
}

/** Tokens [from, to) of a prompt. */
export function slice(prompt: Prompt, from: number, to: number): Prompt {
  const cut = ({ shape: [, heads, width], data }: NdArray) =>
    nd([to - from, heads!, width!], data.subarray(from * heads! * width!, to * heads! * width!));
  return { q: cut(prompt.q), k: cut(prompt.k), v: cut(prompt.v) };
}

/** Some tokens of the sequence in table row `row`, after `position` in the cache. */
export interface Piece {
  readonly row: number;
  readonly position: number;
  readonly prompt: Prompt;
}

export class PagedCache {
  readonly pageTable: number[][];
  readonly pages: Tensor;
  readonly expectedPages: NdArray;
  readonly sinks: NdArray | undefined;
  readonly alibiSlopes: NdArray | undefined;
  readonly relativeBias: NdArray | undefined;

  constructor(
    readonly shape: Shape,
    rows: number,
  ) {
    const { heads, kvHeads, width, pageTokens, tablePages } = shape;
    const count = rows * tablePages + 1;
    const { int } = seeded(count);
    const order = Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const other = int(i + 1);
      [order[i], order[other]] = [order[other]!, order[i]!];
    }
    this.pageTable = Array.from({ length: rows }, (_, row) => order.slice(row * tablePages, (row + 1) * tablePages));
    this.expectedPages = nd([count, 2, pageTokens, kvHeads, width]);
    this.expectedPages.data.fill(Number.NaN);
    // A pool, as a model has it: a failed command does not taint it.
    const dtype = shape.cacheDtype ?? 'float32';
    this.pages = Tensor.make({ dtype, shape: this.expectedPages.shape }, false, true);
    const filled = tensorOf(this.expectedPages, dtype);
    this.written = filled.read().then((values) => this.pages.write(values));
    this.sinks = shape.sinks
      ? nd(
          [heads],
          Array.from({ length: heads }, (_, h) => h / 2 - 1),
        )
      : undefined;
    this.alibiSlopes = shape.alibi
      ? nd(
          [heads],
          Array.from({ length: heads }, (_, h) => Math.fround(0.03 * (h + 1))),
        )
      : undefined;
    const { biasDistances } = shape;
    this.relativeBias = biasDistances ? rounded(seeded(7).normal([heads, biasDistances], 1), 'float32') : undefined;
  }
  readonly written: Promise<void>;

  /** The first tokens of the sequence in each table row are in the cache, without a call of the op. */
  async hold(prompts: readonly Prompt[]): Promise<void> {
    const { pageTokens, kvHeads, width, cacheDtype = 'float32' } = this.shape;
    const size = kvHeads * width;
    for (const [row, { k, v }] of prompts.entries()) {
      for (const [part, { shape, data }] of [k, v].entries()) {
        for (let t = 0; t < shape[0]!; t++) {
          const page = this.pageTable[row]![Math.floor(t / pageTokens)]!;
          const at = ((page * 2 + part) * pageTokens + (t % pageTokens)) * size;
          this.expectedPages.data.set(data.subarray(t * size, (t + 1) * size), at);
        }
      }
    }
    this.pages.write(await tensorOf(this.expectedPages, cacheDtype).read());
  }

  private packed(pieces: readonly Piece[]) {
    const join = (name: 'q' | 'k' | 'v') => {
      const parts = pieces.map(({ prompt }) => prompt[name]);
      const tokens = parts.reduce((sum, part) => sum + part.shape[0]!, 0);
      const joined = nd([tokens, ...parts[0]!.shape.slice(1)]);
      let at = 0;
      for (const { data } of parts) {
        joined.data.set(data, at);
        at += data.length;
      }
      return joined;
    };
    return { q: join('q'), k: join('k'), v: join('v') };
  }

  /** One call of the op for the pieces; row -1 is dropped. */
  attend(pieces: readonly Piece[]): SoftmaxAttentionOutput<DType> {
    return softmaxAttention(this.input(pieces));
  }

  input(pieces: readonly Piece[]): SoftmaxAttentionInput<DType> {
    const { dtype = 'float32', width, window = 0, sinkTokens = 0, tablePages } = this.shape;
    const { q, k, v } = this.packed(pieces);
    const float32 = (array: NdArray | undefined) => array && tensorOf(array, 'float32');
    return {
      q: tensorOf(q, dtype) as Tensor,
      k: tensorOf(k, dtype),
      v: tensorOf(v, dtype),
      pages: this.pages,
      pageTable: Tensor.from(this.pageTable.flat(), { dtype: 'int32', shape: [this.pageTable.length, tablePages] }),
      tableRows: Tensor.from(
        pieces.map(({ row }) => row),
        { dtype: 'int32', shape: [pieces.length] },
      ),
      sequences: packedSequences(
        pieces.map(({ prompt }) => prompt.q.shape[0]!),
        { positions: pieces.map(({ position }) => position) },
      ),
      scale: width ** -0.5,
      window,
      sinkTokens,
      sinks: float32(this.sinks),
      alibiSlopes: float32(this.alibiSlopes),
      relativeBias: float32(this.relativeBias),
      rowStatistics: true,
    };
  }

  /** What `attend` must return; updates expectedPages. With Float32Array: as a plain float32 formula has it. */
  expected(pieces: readonly Piece[], numbers: Float64ArrayConstructor | Float32ArrayConstructor = Float64Array) {
    const { width, window = 0, sinkTokens = 0, cacheDtype = 'float32' } = this.shape;
    const offsets = [0];
    for (const { prompt } of pieces) offsets.push(offsets.at(-1)! + prompt.q.shape[0]!);
    const { expectedPages: pages, sinks, alibiSlopes, relativeBias } = this;
    return softmaxAttentionReference(
      { ...this.packed(pieces), pages, sinks, alibiSlopes, relativeBias },
      { offsets, positions: pieces.map(({ position }) => position) },
      { pageTable: this.pageTable, tableRows: pieces.map(({ row }) => row) },
      { scale: width ** -0.5, window, sinkTokens, store: rounding(cacheDtype), numbers },
    );
  }
}
