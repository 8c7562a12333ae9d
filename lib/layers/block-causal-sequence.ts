// A sequence that a BlockCausalLinformer reads.
import { packedSequences, type Sequences } from '../ops/sequences';
import type { DeviceName } from '../tensor/device';
import { own } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { pageTokens } from './layer';

export type BlockCausalDType = 'float32' | 'bfloat16' | 'float16';

/** Blocks that are read together, in pages of their own. */
const blocksAtOnce = 16;

/** Where a run of blocks finds its pages: a table row for each of them, and one for the slots of complete blocks. */
interface BlockTable {
  readonly first: number;
  readonly count: number;
  readonly pages: Tensor<'int32'>;
  readonly rows: Tensor<'int32'>;
  readonly slotsRow: Tensor<'int32'>;
}

/** What a run of blocks adds to its mixtures: the same for all runs of these lengths in these places. */
interface BlockMixing {
  readonly key: string;
  /** int32: the row of E of each token, where there are several blocks. */
  readonly tokens: Tensor<'int32'> | undefined;
  readonly sequences: Sequences;
  /** Blocks that end, the first of the run, and kB tokens for each of them that read its mixtures. */
  readonly complete: number;
  readonly ended: Sequences | undefined;
}

/**
 * One sequence, in pages: those of the slots of complete blocks, which all later blocks share, and for each of the last
 * blocks pages of its own, where the tokens lie behind the last slots; and the mixtures of these blocks so far. Belongs to
 * whoever made it: no scope frees it.
 */
export class BlockCausalSequence implements Disposable {
  /** Tokens so far. */
  length = 0;
  /** @internal of q, k and v while they are attended to, and of pages */
  readonly dtype: BlockCausalDType;
  /** @internal [pages, 2, 64, Hkv, D] */
  readonly pages: Tensor<BlockCausalDType>;
  /** @internal float32 [blocks at once, Hkv, D, kB]: of keys, of values */
  readonly mixtures: readonly [Tensor<'float32'>, Tensor<'float32'>];
  /** @internal float32 [blocks at once * kB, 1, kB]: row t reads slot t % kB */
  readonly unit: Tensor<'float32'>;
  /** Blocks at once, pages of the slots, and of the tokens of a block with the slots before them. */
  private readonly together: number;
  private readonly slotPages: number;
  private readonly blockPages: number;
  private table: BlockTable | undefined;
  private mixing: BlockMixing | undefined;

  /** @internal made by BlockCausalLinformer.createSequence */
  constructor(
    readonly capacity: number,
    heads: number,
    width: number,
    readonly block: number,
    readonly slots: number,
    dtype: BlockCausalDType,
    device: DeviceName,
  ) {
    const blocks = Math.ceil(capacity / block);
    this.dtype = dtype;
    this.together = Math.max(1, Math.min(blocks, blocksAtOnce));
    this.slotPages = Math.ceil((blocks * slots) / pageTokens);
    this.blockPages = Math.ceil((pageTokens - 1 + block) / pageTokens);
    const count = this.slotPages + this.together * this.blockPages;
    this.pages = own(Tensor.zeros({ dtype, shape: [count, 2, pageTokens, heads, width], device }));
    const mixtures = () => own(Tensor.zeros({ dtype: 'float32', shape: [this.together, heads, width, slots], device }));
    this.mixtures = [mixtures(), mixtures()];
    const rows = this.together * slots;
    const unit = Float32Array.from({ length: rows * slots }, (_, i) =>
      Math.floor(i / slots) % slots === i % slots ? 1 : 0,
    );
    this.unit = own(Tensor.from(unit, { dtype: 'float32', shape: [rows, 1, slots], device }));
  }

  /** @internal Blocks from `first` on that are read together. */
  get atOnce(): number {
    return this.together;
  }

  /** @internal The page where the tokens of a block begin, behind the last slots, of which that page has `behind`. */
  firstPage(block: number): { shared: number; own: number; behind: number } {
    const place = block * this.slots;
    const own = this.slotPages + (block % this.together) * this.blockPages;
    return { shared: Math.floor(place / pageTokens), own, behind: place % pageTokens };
  }

  /** @internal Of blocks [first, first + count); the last one made is kept, for decode. */
  tableOf(first: number, count: number): BlockTable {
    if (this.table?.first === first && this.table.count === count) return this.table;
    this.freeTable();
    const behindAll = Math.ceil(((first + count) * this.slots) / pageTokens);
    const width = Math.max(this.firstPage(first + count - 1).shared + this.blockPages, behindAll);
    const pages = new Int32Array((count + 1) * width);
    for (let row = 0; row <= count; row++) {
      const { shared, own: begin } = row < count ? this.firstPage(first + row) : { shared: width, own: 0 };
      for (let at = 0; at < width; at++) {
        const page = at < shared ? at : begin + Math.min(at - shared, this.blockPages - 1);
        pages[row * width + at] = Math.min(page, this.pages.shape[0]! - 1);
      }
    }
    const ints = (data: Int32Array, ...shape: number[]) =>
      own(Tensor.from(data, { dtype: 'int32', shape, device: this.pages.device }));
    this.table = {
      first,
      count,
      pages: ints(pages, count + 1, width),
      rows: ints(
        Int32Array.from({ length: count }, (_, row) => row),
        count,
      ),
      slotsRow: ints(Int32Array.of(count), 1),
    };
    return this.table;
  }

  /** @internal Of blocks from `first` on, each from its token `starts` on; the last one made is kept. */
  mixingOf(first: number, starts: readonly number[], lengths: readonly number[]): BlockMixing {
    const places = starts.map((_, i) => (first + i) % this.together);
    const key = [starts, lengths, places].join(';');
    if (this.mixing?.key === key) return this.mixing;
    this.freeMixing();
    const { block, slots } = this;
    const { device } = this.pages;
    const kept = (sequences: Sequences): Sequences => {
      const { offsets, readSlots, writeSlots, positions } = sequences;
      for (const tensor of [offsets, readSlots, writeSlots, positions]) own(tensor);
      return sequences;
    };
    const readSlots = places.map((place, i) => (starts[i] === 0 ? -1 : place));
    const complete = starts.filter((start, i) => start + lengths[i]! === block).length;
    const tokens = starts.length > 1 ? rowsOfBlocks(starts, lengths) : undefined;
    this.mixing = {
      key,
      tokens: tokens && own(Tensor.from(tokens, { dtype: 'int32', shape: [tokens.length], device })),
      sequences: kept(packedSequences(lengths, { readSlots, writeSlots: places, device })),
      complete,
      ended:
        complete > 0
          ? kept(
              packedSequences(new Array<number>(complete).fill(slots), {
                readSlots: places.slice(0, complete),
                device,
              }),
            )
          : undefined,
    };
    return this.mixing;
  }

  private freeMixing(): void {
    this.mixing?.tokens?.dispose();
    this.mixing?.sequences.dispose();
    this.mixing?.ended?.dispose();
    this.mixing = undefined;
  }

  private freeTable(): void {
    for (const tensor of [this.table?.pages, this.table?.rows, this.table?.slotsRow]) tensor?.dispose();
    this.table = undefined;
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    this.freeTable();
    this.freeMixing();
    for (const tensor of [this.pages, this.unit, ...this.mixtures]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function rowsOfBlocks(starts: readonly number[], lengths: readonly number[]): Int32Array {
  const rows = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let at = 0;
  starts.forEach((start, i) => {
    for (let t = 0; t < lengths[i]!; t++) rows[at++] = start + t;
  });
  return rows;
}
