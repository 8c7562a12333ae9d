// A causal relative of Linformer, and another model: blocks of B tokens, of which the complete ones are seen as kB learned
// mixtures each, and the current one token by token. It has to be trained as such.
import { linattnError } from '../errors';
import { convert, convertInto } from '../ops/convert';
import { copySlots } from '../ops/copy-slots';
import { gatherRows } from '../ops/gather-rows';
import { linearAttention } from '../ops/linear-attention';
import { packedSequences, type Sequences } from '../ops/sequences';
import { softmaxAttention } from '../ops/softmax-attention';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { leave, scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { type Hidden, pageTokens } from './layer';

export type BlockCausalDType = 'float32' | 'bfloat16' | 'float16';

export interface BlockCausalLinformerOptions {
  /** E, float32 [B, 1, kB] or [B, Hkv, kB]: row t = what token t of a block gives to each of its kB slots; kB % 8 = 0. */
  readonly keyProjection: Tensor<'float32'>;
  /** F, as E; absent: F = E. */
  readonly valueProjection?: Tensor<'float32'> | undefined;
  /** Of the scores, D^(-1/2) by default. */
  readonly scale?: number | undefined;
}

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

  /** @internal made by BlockCausalLinformer.createSequence */
  constructor(
    readonly capacity: number,
    heads: number,
    width: number,
    block: number,
    private readonly slots: number,
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

  /** @internal Where the mixtures of a block lie. */
  mixtureSlot(block: number): number {
    return block % this.together;
  }

  /** @internal Blocks from `first` on that are read together. */
  get atOnce(): number {
    return this.together;
  }

  /** @internal The page where the tokens of a block begin, behind the last slots, of which that page has `behind`. */
  firstPage(block: number): { shared: number; own: number; behind: number } {
    const place = block * this.slots;
    const own = this.slotPages + this.mixtureSlot(block) * this.blockPages;
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

  private freeTable(): void {
    for (const tensor of [this.table?.pages, this.table?.rows, this.table?.slotsRow]) tensor?.dispose();
    this.table = undefined;
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    this.freeTable();
    for (const tensor of [this.pages, this.unit, ...this.mixtures]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** A tensor that no scope frees. */
function own<T extends Tensor>(tensor: T): T {
  leave(tensor);
  tensor.keep();
  return tensor;
}

/**
 * out_t = softmax over [E K_b of every complete block b, the keys of the own block up to t] of scale q_t, times the values
 * of the same. Memory grows by kB places a block of B tokens; a token costs what softmax attention over them costs.
 */
export class BlockCausalLinformer {
  private readonly block: number;
  private readonly slots: number;
  private readonly projections: readonly [Tensor<'float32'>, Tensor<'float32'>];

  /** @throws LinattnError ERR_SHAPE */
  constructor(private readonly options: BlockCausalLinformerOptions) {
    const { keyProjection: E, valueProjection: F = E } = options;
    if (E.shape.length !== 3 || F.shape.join() !== E.shape.join()) {
      throw linattnError(
        'ERR_SHAPE',
        `BlockCausalLinformer: keyProjection and valueProjection must be [B, heads, kB], got [${E.shape}] and [${F.shape}]`,
      );
    }
    this.block = E.shape[0]!;
    this.slots = E.shape[2]!;
    this.projections = [E, F];
  }

  /** Room for a sequence of `capacity` tokens with `heads` key heads of `width` values, keys as wide as values. */
  createSequence(sizes: {
    capacity: number;
    heads: number;
    width: number;
    /** What keys, values and mixtures are kept as, and q, E and F taken as; float32 by default. */
    dtype?: BlockCausalDType | undefined;
    device?: DeviceName | undefined;
  }): BlockCausalSequence {
    const { capacity, heads, width, dtype = 'float32', device = defaultDevice() } = sizes;
    return new BlockCausalSequence(capacity, heads, width, this.block, this.slots, dtype, device);
  }

  /**
   * The next tokens of a sequence. Any split gives the same bits on the CPU.
   * @param q [T, Hq, D], k and v [T, Hkv, D]: float32, bfloat16 or float16; D is a multiple of 8
   * @returns [T, Hq, D] as q
   * @throws LinattnError ERR_ARGUMENT beyond the capacity, and as softmaxAttention
   */
  forward({ q, k, v }: { q: Hidden; k: Hidden; v: Hidden }, sequence: BlockCausalSequence): Hidden {
    const [T, Hq, D] = q.shape as [number, number, number];
    if (sequence.length + T > sequence.capacity) {
      throw linattnError(
        'ERR_ARGUMENT',
        `BlockCausalLinformer: the sequence has room for ${sequence.capacity} tokens, got ${sequence.length} + ${T}`,
      );
    }
    return scope(() => {
      const { dtype } = sequence;
      const all = [q, k, v].map((x) => convert({ x, dtype })) as [Hidden, Hidden, Hidden];
      const projections = this.projections.map((E) => as(E, dtype));
      const most = sequence.atOnce * this.block;
      const outs: Hidden[] = [];
      for (let from = 0; from < T; ) {
        const count = Math.min(T - from, most - (sequence.length % this.block));
        const [queries, keys, values] = all.map((x) => rows(x, from, count)) as [Hidden, Hidden, Hidden];
        outs.push(this.read(queries, keys, values, projections, sequence));
        sequence.length += count;
        from += count;
      }
      if (outs.length === 1) return as(outs[0]!, q.dtype);
      const out = Tensor.zeros({ dtype: q.dtype, shape: [T, Hq, D], device: q.device });
      let from = 0;
      for (const one of outs) {
        convertInto({ x: one, into: rows(out, from, one.shape[0]!) });
        from += one.shape[0]!;
      }
      return out;
    });
  }

  /** Tokens of as many blocks as are read together. */
  private read(q: Hidden, k: Hidden, v: Hidden, projections: readonly Hidden[], sequence: BlockCausalSequence): Hidden {
    const { block: B, slots: kB } = this;
    const { device } = q;
    const begin = sequence.length;
    const end = begin + q.shape[0]!;
    const first = Math.floor(begin / B);
    const blocks = Array.from({ length: Math.ceil(end / B) - first }, (_, i) => first + i);
    const starts = blocks.map((b) => Math.max(begin, b * B) - b * B);
    const lengths = blocks.map((b, i) => Math.min(end, (b + 1) * B) - b * B - starts[i]!);
    const table = sequence.tableOf(first, blocks.length);
    const scale = this.options.scale ?? q.shape[2]! ** -0.5;
    const attend = (x: [Hidden, Hidden, Hidden], tableRows: Tensor<'int32'>, sequences: Sequences, window: number) => {
      const { pages } = sequence;
      const [queries, keys, values] = x;
      const call = { q: queries, k: keys, v: values, pages, pageTable: table.pages, tableRows, sequences };
      return softmaxAttention({ ...call, scale, window }).out;
    };

    const slots = blocks.map((b) => sequence.mixtureSlot(b));
    const readSlots = slots.map((slot, i) => (starts[i] === 0 ? -1 : slot));
    const mixed = packedSequences(lengths, { readSlots, writeSlots: slots, device });
    for (const [i, x] of [k, v].entries()) {
      const E = tokensOf(projections[i]!, starts, lengths);
      linearAttention({ k: E, v: x, rule: additive, state: sequence.mixtures[i]!, sequences: mixed });
    }

    const complete = Math.floor(end / B) - first;
    if (complete > 0) {
      const each = packedSequences(new Array<number>(complete).fill(kB), {
        readSlots: slots.slice(0, complete),
        device,
      });
      const unit = rows(sequence.unit, 0, complete * kB);
      const [keys, values] = sequence.mixtures.map(
        (state) => linearAttention({ q: unit, rule: additive, state, sequences: each }).out,
      ) as [Hidden, Hidden];
      const place = packedSequences([complete * kB], { positions: [first * kB], device });
      // Written there; a window of one token costs next to nothing.
      attend([as(keys, sequence.dtype), keys, values], table.slotsRow, place, 1);
    }

    const begun = blocks.map((b) => sequence.firstPage(b)).filter(({ behind }, i) => starts[i] === 0 && behind > 0);
    if (begun.length > 0) {
      const ints = (values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length], device });
      const from = ints(begun.map(({ shared }) => shared));
      copySlots({ pool: sequence.pages, from, to: ints(begun.map((page) => page.own)) });
    }
    const positions = blocks.map((b, i) => b * kB + starts[i]!);
    return attend([q, k, v], table.rows, packedSequences(lengths, { positions, device }), 0);
  }
}

const additive = { name: 'additive' } as const;

const as = (x: Hidden, dtype: BlockCausalDType): Hidden => (x.dtype === dtype ? x : convert({ x, dtype }));

/** Rows [start, start + length) of E for each block, one after the other. */
function tokensOf(E: Hidden, starts: readonly number[], lengths: readonly number[]): Hidden {
  if (starts.length === 1) return rows(E, starts[0]!, lengths[0]!);
  const [B, heads, kB] = E.shape as [number, number, number];
  const tokens = starts.flatMap((start, i) => Array.from({ length: lengths[i]! }, (_, t) => start + t));
  const wanted = Tensor.from(tokens, { dtype: 'int32', shape: [tokens.length], device: E.device });
  const flat = E.view([B, heads * kB], 0, heads * kB);
  return gatherRows({ x: flat, rows: wanted }).view([tokens.length, heads, kB], 0, heads * kB) as Hidden;
}

/** Tokens [from, from + count) of a contiguous [T, H, D]. */
function rows<T extends Tensor>(x: T, from: number, count: number): T {
  const [, H, D] = x.shape as [number, number, number];
  return x.view([count, H, D], from * H * D, H * D) as T;
}
