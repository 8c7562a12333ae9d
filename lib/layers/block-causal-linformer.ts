// A causal relative of Linformer, and another model: blocks of B tokens, of which the complete ones are seen as kB learned
// mixtures each, and the current one token by token. It has to be trained as such.
import { checkOptions, linattnError, shown } from '../errors';
import { convert, convertInto } from '../ops/convert';
import { copySlots } from '../ops/copy-slots';
import { floats } from '../ops/float';
import { gatherRows } from '../ops/gather-rows';
import { linearAttention } from '../ops/linear-attention';
import { packedSequences, type Sequences } from '../ops/sequences';
import { softmaxAttention } from '../ops/softmax-attention';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { checkScale, checkTensor } from './arguments';
import { type AttentionTokens, checkCall, checkSizes, checkTokens } from './attention-tokens';
import { type BlockCausalDType, BlockCausalSequence } from './block-causal-sequence';
import type { Hidden } from './layer';

export interface BlockCausalLinformerOptions {
  /** E, float32 [B, 1, kB] or [B, Hkv, kB]: row t = what token t of a block gives to each of its kB slots; kB % 8 = 0. */
  readonly keyProjection: Tensor<'float32'>;
  /** F, as E; absent: F = E. */
  readonly valueProjection?: Tensor<'float32'> | undefined;
  /** Of the scores, D^(-1/2) by default. */
  readonly scale?: number | undefined;
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
    checkOptions('BlockCausalLinformer', options);
    const { keyProjection: E, valueProjection: F = E } = options;
    checkTensor('BlockCausalLinformer', 'keyProjection', E);
    checkTensor('BlockCausalLinformer', 'valueProjection', F);
    checkScale('BlockCausalLinformer', options.scale);
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

  /**
   * Room for a sequence of `capacity` tokens with `heads` key heads of `width` values, keys as wide as values.
   * @throws LinattnError ERR_ARGUMENT, ERR_DTYPE
   */
  createSequence(sizes: {
    capacity: number;
    heads: number;
    width: number;
    /** What keys, values and mixtures are kept as, and q, E and F taken as; float32 by default. */
    dtype?: BlockCausalDType | undefined;
    device?: DeviceName | undefined;
  }): BlockCausalSequence {
    checkOptions('BlockCausalLinformer', sizes);
    const { capacity, heads, width, dtype = 'float32', device = defaultDevice() } = sizes;
    checkSizes('BlockCausalLinformer', { capacity, heads, width });
    if (!floats.includes(dtype)) {
      throw linattnError(
        'ERR_DTYPE',
        `BlockCausalLinformer: dtype must be ${floats.join(' or ')}, got ${shown(dtype)}`,
      );
    }
    return new BlockCausalSequence(capacity, heads, width, this.block, this.slots, dtype, device);
  }

  /**
   * The next tokens of a sequence. Any split gives the same bits on the CPU.
   * @param q [T, Hq, D], k and v [T, Hkv, D]: float32, bfloat16 or float16; D is a multiple of 8
   * @returns [T, Hq, D] as q
   * @throws LinattnError ERR_ARGUMENT, beyond the capacity too, ERR_SHAPE, and as softmaxAttention
   */
  forward(input: AttentionTokens, sequence: BlockCausalSequence): Hidden {
    checkCall('BlockCausalLinformer', input, sequence, BlockCausalSequence);
    const { q, k, v } = input;
    const [T, Hq, D] = q.shape as [number, number, number];
    const { block, slots } = sequence;
    if (block !== this.block || slots !== this.slots) {
      throw linattnError(
        'ERR_ARGUMENT',
        `BlockCausalLinformer: the sequence must be one of [B, kB] = [${this.block}, ${this.slots}], got [${block}, ${slots}]`,
      );
    }
    checkTokens('BlockCausalLinformer', { q, k, v }, ...(sequence.pages.shape.slice(3) as [number, number]));
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

    const mixing = sequence.mixingOf(first, starts, lengths);
    for (const [i, x] of [k, v].entries()) {
      const E = tokensOf(projections[i]!, starts[0]!, lengths[0]!, mixing.tokens);
      linearAttention({ k: E, v: x, rule: additive, state: sequence.mixtures[i]!, sequences: mixing.sequences });
    }

    const { complete, ended } = mixing;
    if (ended) {
      const unit = rows(sequence.unit, 0, complete * kB);
      const [keys, values] = sequence.mixtures.map(
        (state) => linearAttention({ q: unit, rule: additive, state, sequences: ended }).out,
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

/** E of each token: of one block from its row `start` on, or the rows that are given. */
function tokensOf(E: Hidden, start: number, length: number, given: Tensor<'int32'> | undefined): Hidden {
  if (!given) return rows(E, start, length);
  const [B, heads, kB] = E.shape as [number, number, number];
  const flat = E.view([B, heads * kB], 0, heads * kB);
  return gatherRows({ x: flat, rows: given }).view([given.shape[0]!, heads, kB], 0, heads * kB) as Hidden;
}

/** Tokens [from, from + count) of a contiguous [T, H, D]. */
function rows<T extends Tensor>(x: T, from: number, count: number): T {
  const [, H, D] = x.shape as [number, number, number];
  return x.view([count, H, D], from * H * D, H * D) as T;
}
