// Linformer (https://arxiv.org/abs/2006.04768): softmax attention over k learned mixtures of the keys and values.
// A mixture E K is a sum over tokens of outer products, so it is the state of an additive linear attention: it streams.
import { checkOptions, linattnError } from '../errors';
import { convert } from '../ops/convert';
import { featureMap } from '../ops/feature-map';
import { gatherRows } from '../ops/gather-rows';
import { linearAttention } from '../ops/linear-attention';
import { sequences as sequencesOf } from '../ops/sequences';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { leave, scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { checkInstance, checkLists, checkScale, checkTensor } from './arguments';
import { checkSizes } from './attention-tokens';
import type { Hidden } from './layer';

export interface LinformerOptions {
  /**
   * E, float32 [n, 1, k], row t = what token t gives to each of k slots; [n, Hkv, k] for one of each head. n is the
   * longest sequence, a shorter one takes the first rows. k is a multiple of 8 up to 512.
   * Headwise sharing is one E and one F; layerwise sharing is the same tensor in every layer.
   */
  readonly keyProjection: Tensor<'float32'>;
  /** F, as E; absent: key-value sharing, F = E. */
  readonly valueProjection?: Tensor<'float32'> | undefined;
  /** Of the scores, D^(-1/2) by default. */
  readonly scale?: number | undefined;
  /** There is no causal Linformer: true is an error that says why. */
  readonly causal?: false | undefined;
}

export interface LinformerMemorySizes {
  readonly slots: number;
  /** Hkv */
  readonly heads: number;
  readonly keyWidth: number;
  readonly valueWidth: number;
}

/** Of complete sequences, a slot each: E K and F V. Belongs to whoever made it: no scope frees it. */
export class LinformerMemory implements Disposable {
  /** float32 [slots, Hkv, k, keyWidth] and [slots, Hkv, valueWidth, k] */
  readonly keys: Tensor<'float32'>;
  readonly values: Tensor<'float32'>;

  /** @internal made by Linformer.createMemory */
  constructor({ slots, heads, keyWidth, valueWidth }: LinformerMemorySizes, k: number, device: DeviceName) {
    const own = (...shape: number[]): Tensor<'float32'> => {
      const tensor = Tensor.zeros({ dtype: 'float32', shape, device });
      leave(tensor);
      tensor.keep();
      return tensor;
    };
    this.keys = own(slots, heads, k, keyWidth);
    this.values = own(slots, heads, valueWidth, k);
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    this.keys.dispose();
    this.values.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const fail = (code: 'ERR_ARGUMENT' | 'ERR_SHAPE' | 'ERR_UNSUPPORTED', message: string): never => {
  throw linattnError(code, `Linformer: ${message}`);
};

/** Packed tokens, [T, H, width]: sequences of these lengths, one after the other. */
export interface LinformerTokens {
  readonly lengths: readonly number[];
  /** The memory's slot of each sequence; its own number by default. */
  readonly slots?: readonly number[] | undefined;
}

/**
 * out = softmax(scale q (E K)') (F V), over all tokens of a sequence: for encoders, and for cross-attention over a memory
 * that is complete. Computed in float32; exact for what it is, which is not softmax attention over the tokens.
 */
export class Linformer {
  private readonly slots: number;

  /** @throws LinattnError ERR_SHAPE; ERR_UNSUPPORTED for causal */
  constructor(private readonly options: LinformerOptions) {
    checkOptions('Linformer', options);
    if ((options.causal as boolean | undefined) === true) {
      fail(
        'ERR_UNSUPPORTED',
        'causal is impossible: each of the k slots mixes all positions, so every token would see later ones, and no ' +
          'mask over slots takes that back. BlockCausalLinformer mixes only blocks that are complete (another model, to ' +
          'be trained as such); remember and recall attend to a memory that lies in the past',
      );
    }
    const { keyProjection: E, valueProjection: F = E } = options;
    checkTensor('Linformer', 'keyProjection', E);
    checkTensor('Linformer', 'valueProjection', F);
    checkScale('Linformer', options.scale);
    if (E.shape.length !== 3) fail('ERR_SHAPE', `keyProjection must be [n, heads, k], got [${E.shape.join(', ')}]`);
    if (F.shape.join() !== E.shape.join()) {
      fail(
        'ERR_SHAPE',
        `valueProjection must be [${E.shape.join(', ')}] as keyProjection, got [${F.shape.join(', ')}]`,
      );
    }
    this.slots = E.shape[2]!;
  }

  /** Slots for memories. */
  createMemory(sizes: LinformerMemorySizes & { device?: DeviceName | undefined }): LinformerMemory {
    checkOptions('Linformer', sizes);
    const { slots, heads, keyWidth, valueWidth } = sizes;
    checkSizes('Linformer', { slots, heads, keyWidth, valueWidth });
    return new LinformerMemory(sizes, this.slots, sizes.device ?? defaultDevice());
  }

  /**
   * Self-attention of an encoder: every token sees its whole sequence.
   * @param q [T, Hq, D], k [T, Hkv, D], v [T, Hkv, Dv]: float32, bfloat16 or float16, D and Dv multiples of 8 up to 512
   * @returns [T, Hq, Dv] as q
   * @throws LinattnError ERR_SHAPE for a sequence longer than n, and as linearAttention
   */
  forward(call: { q: Hidden; k: Hidden; v: Hidden; lengths: readonly number[] }): Hidden {
    checkOptions('Linformer', call);
    const { q, k, v, lengths } = call;
    checkTensor('Linformer', 'q', q);
    checkTensor('Linformer', 'k', k);
    checkTensor('Linformer', 'v', v);
    if (k.shape.length !== 3 || v.shape.length !== 3) fail('ERR_SHAPE', 'k and v must be [T, heads, width]');
    checkLists('Linformer', q, lengths);
    return scope(() => {
      const sizes = { slots: lengths.length, heads: k.shape[1]!, keyWidth: k.shape[2]!, valueWidth: v.shape[2]! };
      using memory = new LinformerMemory(sizes, this.slots, q.device);
      this.remember({ k, v, lengths }, memory);
      return this.recall({ q, lengths }, memory);
    });
  }

  /**
   * Tokens into a memory, in as many calls as it takes.
   * @param call.positions tokens that each slot holds already; 0 by default, which begins it anew
   * @throws LinattnError ERR_SHAPE for a sequence longer than n, and as sequences and linearAttention
   */
  remember(
    call: LinformerTokens & { k: Hidden; v: Hidden; positions?: readonly number[] | undefined },
    memory: LinformerMemory,
  ): void {
    checkOptions('Linformer', call);
    checkTensor('Linformer', 'k', call.k);
    checkTensor('Linformer', 'v', call.v);
    checkLists('Linformer', call.k, call.lengths, { slots: call.slots, positions: call.positions });
    checkInstance('Linformer', 'memory', memory, LinformerMemory);
    const { k, v, lengths, slots = lengths.map((_, n) => n), positions = lengths.map(() => 0) } = call;
    const { keyProjection, valueProjection } = this.options;
    scope(() => {
      const readSlots = slots.map((slot, n) => (positions[n]! > 0 ? slot : -1));
      const sequences = sequencesOf(lengths, { readSlots, writeSlots: slots, positions, device: k.device });
      const tokens = lengths.flatMap((length, n) => Array.from({ length }, (_, t) => positions[n]! + t));
      const rule = { name: 'additive' } as const;
      const mix = this.rowsOf(keyProjection, tokens);
      linearAttention({ k: convert({ x: k, dtype: 'float32' }), v: mix, rule, state: memory.keys, sequences });
      const weights = valueProjection ? this.rowsOf(valueProjection, tokens) : mix;
      linearAttention({ k: weights, v: convert({ x: v, dtype: 'float32' }), rule, state: memory.values, sequences });
    });
  }

  /**
   * Cross-attention: queries over complete memories.
   * @param call.q [T, Hq, D]
   * @returns [T, Hq, Dv] as q
   */
  recall(call: LinformerTokens & { q: Hidden }, memory: LinformerMemory): Hidden {
    checkOptions('Linformer', call);
    checkTensor('Linformer', 'q', call.q);
    checkLists('Linformer', call.q, call.lengths, { slots: call.slots });
    checkInstance('Linformer', 'memory', memory, LinformerMemory);
    const { q, lengths, slots = lengths.map((_, n) => n) } = call;
    const scale = this.options.scale ?? (q.shape[2] ?? 1) ** -0.5;
    return scope(() => {
      const writeSlots = lengths.map(() => -1);
      const sequences = sequencesOf(lengths, { readSlots: slots, writeSlots, device: q.device });
      const rule = { name: 'additive' } as const;
      const x = convert({ x: q, dtype: 'float32' });
      const scores = linearAttention({ q: x, rule, scale, state: memory.keys, sequences }).out;
      const shares = featureMap({ x: scores, name: 'softmax' });
      const { out } = linearAttention({ q: shares, rule, state: memory.values, sequences });
      return convert({ x: out, dtype: q.dtype });
    });
  }

  /** The rows of E of these positions, [T, heads, k]. */
  private rowsOf(projection: Tensor<'float32'>, tokens: readonly number[]): Tensor<'float32'> {
    const [n, heads, k] = projection.shape as [number, number, number];
    const last = tokens.reduce((most, token) => Math.max(most, token), -1);
    if (last >= n) fail('ERR_SHAPE', `a sequence has ${last + 1} tokens, keyProjection is for n = ${n}`);
    const flat = projection.view([n, heads * k], 0, heads * k);
    const rows = Tensor.from(tokens, { dtype: 'int32', shape: [tokens.length], device: projection.device });
    return gatherRows({ x: flat, rows }).view([tokens.length, heads, k], 0, heads * k);
  }
}
