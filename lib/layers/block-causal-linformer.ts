// A causal relative of Linformer, and another model: blocks of B tokens, of which the complete ones are seen as kB learned
// mixtures each, and the current one token by token. It has to be trained as such.
import { linattnError } from '../errors';
import { convert, convertInto } from '../ops/convert';
import { linearAttention } from '../ops/linear-attention';
import { packedSequences } from '../ops/sequences';
import { softmaxAttention } from '../ops/softmax-attention';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { leave, scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { type Hidden, pageTokens } from './layer';

export interface BlockCausalLinformerOptions {
  /** E, float32 [B, 1, kB] or [B, Hkv, kB]: row t = what token t of a block gives to each of its kB slots; kB % 8 = 0. */
  readonly keyProjection: Tensor<'float32'>;
  /** F, as E; absent: F = E. */
  readonly valueProjection?: Tensor<'float32'> | undefined;
  /** Of the scores, D^(-1/2) by default. */
  readonly scale?: number | undefined;
}

/**
 * One sequence: the slots of its complete blocks, then the tokens of the current one, in pages; and the mixtures of the
 * current block so far. Belongs to whoever made it: no scope frees it.
 */
export class BlockCausalSequence implements Disposable {
  /** Tokens so far. */
  length = 0;
  /** @internal float32 [pages, 2, 64, Hkv, D] */
  readonly pages: Tensor<'float32'>;
  /** @internal int32 [1, pages], and its one row */
  readonly pageTable: Tensor<'int32'>;
  readonly tableRows: Tensor<'int32'>;
  /** @internal float32 [1, Hkv, D, kB]: of keys, of values */
  readonly mixtures: readonly [Tensor<'float32'>, Tensor<'float32'>];

  /** @internal made by BlockCausalLinformer.createSequence */
  constructor(
    readonly capacity: number,
    heads: number,
    width: number,
    places: number,
    slots: number,
    device: DeviceName,
  ) {
    const own = <T extends Tensor>(tensor: T): T => {
      leave(tensor);
      tensor.keep();
      return tensor;
    };
    const count = Math.ceil(places / pageTokens);
    const zeros = (...shape: number[]) => own(Tensor.zeros({ dtype: 'float32', shape, device }));
    this.pages = zeros(count, 2, pageTokens, heads, width);
    const numbers = Array.from({ length: count }, (_, page) => page);
    this.pageTable = own(Tensor.from(numbers, { dtype: 'int32', shape: [1, count], device }));
    this.tableRows = own(Tensor.from([0], { dtype: 'int32', shape: [1], device }));
    this.mixtures = [zeros(1, heads, width, slots), zeros(1, heads, width, slots)];
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    for (const tensor of [this.pages, this.pageTable, this.tableRows, ...this.mixtures]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
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
    device?: DeviceName | undefined;
  }): BlockCausalSequence {
    const { capacity, heads, width, device = defaultDevice() } = sizes;
    const blocks = Math.ceil(capacity / this.block);
    const places = Math.max(blocks - 1, 0) * this.slots + Math.max(this.block, this.slots);
    return new BlockCausalSequence(capacity, heads, width, places, this.slots, device);
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
      const out = Tensor.zeros({ dtype: q.dtype, shape: [T, Hq, D], device: q.device });
      const all = [q, k, v].map((x) => convert({ x, dtype: 'float32' }));
      for (let from = 0; from < T; ) {
        const count = Math.min(T - from, this.block - (sequence.length % this.block));
        const [queries, keys, values] = all.map((x) => rows(x, from, count)) as [Hidden, Hidden, Hidden];
        convertInto({ x: this.attend(queries, keys, values, sequence), into: rows(out, from, count) });
        this.mix([keys, values], sequence);
        sequence.length += count;
        if (sequence.length % this.block === 0) this.close(sequence);
        from += count;
      }
      return out;
    });
  }

  /** Attention of tokens within a block, which are written behind the slots of the blocks before. */
  private attend(q: Hidden, k: Hidden, v: Hidden, sequence: BlockCausalSequence, place?: number): Hidden {
    const { length, pages, pageTable, tableRows } = sequence;
    const position = place ?? Math.floor(length / this.block) * this.slots + (length % this.block);
    const scale = this.options.scale ?? q.shape[2]! ** -0.5;
    const sequences = packedSequences([q.shape[0]!], { positions: [position], device: q.device });
    return softmaxAttention({ q, k, v, pages, pageTable, tableRows, sequences, scale }).out;
  }

  /** Adds tokens to the mixtures of the current block. */
  private mix(added: readonly [Hidden, Hidden], { mixtures, length }: BlockCausalSequence): void {
    const at = length % this.block;
    const slots = { readSlots: [at === 0 ? -1 : 0], writeSlots: [0] };
    added.forEach((v, i) => {
      const k = rows(this.projections[i]!, at, v.shape[0]!);
      const sequences = packedSequences([v.shape[0]!], { ...slots, device: v.device });
      linearAttention({ k, v, rule: { name: 'additive' }, state: mixtures[i]!, sequences });
    });
  }

  /** The mixtures of the block that has ended take the place of its tokens. */
  private close(sequence: BlockCausalSequence): void {
    const kB = this.slots;
    const device = sequence.pages.device;
    const identity = Array.from({ length: kB * kB }, (_, i) => (i % (kB + 1) === 0 ? 1 : 0));
    const q = Tensor.from(identity, { dtype: 'float32', shape: [kB, 1, kB], device });
    const sequences = packedSequences([kB], { readSlots: [0], device });
    const [keys, values] = sequence.mixtures.map(
      (state) => linearAttention({ q, rule: { name: 'additive' }, state, sequences }).out,
    ) as [Hidden, Hidden];
    this.attend(keys, keys, values, sequence, (sequence.length / this.block - 1) * kB);
  }
}

/** Tokens [from, from + count) of a contiguous [T, H, D]. */
function rows<T extends Tensor>(x: T, from: number, count: number): T {
  const [, H, D] = x.shape as [number, number, number];
  return x.view([count, H, D], from * H * D, H * D) as T;
}
