// Softmax attention over a sliding window and linear attention over what lies before it, under one normaliser, as LoLCATs
// has them. Source: https://arxiv.org/abs/2410.10254; the formula is that of HazyResearch/lolcats
// linear_window_attention_sw.py (the `_tk` form there is another mask, and another model).
import { checkOptions, type ErrorCode, linattnError, shown } from '../errors';
import { add } from '../ops/add';
import { causalConv } from '../ops/causal-conv';
import { convert, convertInto } from '../ops/convert';
import { divide } from '../ops/divide';
import { featureCount, paddedWidth } from '../ops/feature-map';
import { linearAttention } from '../ops/linear-attention';
import { packedSequences, type Sequences } from '../ops/sequences';
import { softmaxAttention } from '../ops/softmax-attention';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { own, scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { checkGiven, checkScale } from './arguments';
import { type AttentionTokens, checkCall, checkSizes, checkTokens } from './attention-tokens';
import { checkMap, type FavorMap, keyFeatures, type LayerFeatureMap, queryFeatures } from './feature-maps';
import { type Hidden, pageTokens } from './layer';

export interface WindowedLinearAttentionOptions {
  /** w: a token sees itself and the w - 1 before it by softmax, all others by the map. */
  readonly window: number;
  /** The first tokens that every later one sees by softmax too, as sinkTokens of softmaxAttention; 0 by default. */
  readonly sinkTokens?: number | undefined;
  /** Of queries and keys, without FAVOR+ (Hedgehog, in LoLCATs: 'hedgehogSplit' behind a projection). */
  readonly featureMap: Exclude<LayerFeatureMap, FavorMap>;
  /** Of keys, where it is another. */
  readonly keyFeatureMap?: Exclude<LayerFeatureMap, FavorMap> | undefined;
  /** Of each query head, as stored: gamma is their sigmoid. */
  readonly windowFactors: readonly number[];
  /** The linear part is weighted by 1 - gamma; by default by 1. */
  readonly affine?: boolean | undefined;
  /** Of the scores in the window, D^(-1/2) by default. */
  readonly scale?: number | undefined;
  /** float32 [Hq, R], learned: added to the scores in the window by distance, as relativeBias of softmaxAttention. */
  readonly relativeBias?: Tensor<'float32'> | undefined;
}

type Float32 = Tensor<'float32'>;

const fail = (code: ErrorCode, message: string): never => {
  throw linattnError(code, `WindowedLinearAttention: ${message}`);
};

/** Of the convolution that delays features and values by w tokens, w + 1 for each of them. */
const mostTaps = 2 ** 28;
const mostSinks = 2 ** 20;

// Tokens of one turn through the ops; the ring of pages has room for them.
const turn = 4 * pageTokens;

/**
 * One sequence: a ring of the keys and values that its window sees, the features that have not left it, and the state of
 * those that have. Constant in size. Belongs to whoever made it: no scope frees it.
 */
export class WindowedLinearSequence implements Disposable {
  /** Tokens so far. */
  length = 0;
  /** @internal float32 [pages, 2, 64, Hkv, D] */
  readonly pages: Float32;
  /** @internal int32 [1, pages], and its one row */
  readonly pageTable: Tensor<'int32'>;
  readonly tableRows: Tensor<'int32'>;
  /** @internal float32 [channels, w + 1]: a convolution that delays its input by w tokens */
  readonly delay: Float32;
  /** @internal float32 [1, Hkv F, w] and [1, Hkv D, w]: the features and values of the last w tokens */
  readonly keys: Float32;
  readonly values: Float32;
  /** @internal its first pages are those of these tokens */
  readonly sinkTokens: number;
  /** @internal float32 [1, Hkv, D, F] and [1, Hkv, F] */
  readonly state: Float32;
  readonly keySum: Float32;

  /** @internal made by WindowedLinearAttention.createSequence */
  constructor(
    { window, sinkTokens = 0 }: { window: number; sinkTokens?: number | undefined },
    heads: number,
    width: number,
    features: number,
    device: DeviceName,
  ) {
    this.sinkTokens = sinkTokens;
    const zeros = (...shape: number[]) => own(Tensor.zeros({ dtype: 'float32', shape, device }));
    const ints = (values: number[], shape: number[]) => own(Tensor.from(values, { dtype: 'int32', shape, device }));
    const count = Math.ceil(sinkTokens / pageTokens) + Math.ceil((window + turn) / pageTokens) + 2;
    this.pages = zeros(count, 2, pageTokens, heads, width);
    const numbers = Array.from({ length: count }, (_, page) => page);
    this.pageTable = ints(numbers, [1, count]);
    this.tableRows = ints([0], [1]);
    const channels = heads * Math.max(width, features);
    const oldest = Float32Array.from({ length: channels * (window + 1) }, (_, i) => (i % (window + 1) === 0 ? 1 : 0));
    this.delay = own(Tensor.from(oldest, { dtype: 'float32', shape: [channels, window + 1], device }));
    this.keys = zeros(1, heads * features, window);
    this.values = zeros(1, heads * width, window);
    this.state = zeros(1, heads, width, features);
    this.keySum = zeros(1, heads, features);
  }

  /** Frees the memory once the commands that use it are done. Idempotent. */
  dispose(): void {
    const { pages, pageTable, tableRows, delay, keys, values, state, keySum } = this;
    for (const tensor of [pages, pageTable, tableRows, delay, keys, values, state, keySum]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * With s_ij = scale q_i.k_j (+ relativeBias[min(i - j, R - 1)]), m_i the largest of them in the window of i, and
 * lambda = 1 (or 1 - gamma),
 *
 *     out_i = (gamma sum_(j > i - w) e^(s_ij - m_i) v_j + lambda sum_(j <= i - w) phi(q_i).phi(k_j) v_j) / (the same without v)
 *
 * With sinkTokens the first tokens are in the first sum for every i, and never in the second. m belongs to the
 * definition: the second sum is not scaled by e^(-m), so another m would be another model.
 */
export class WindowedLinearAttention {
  /** @throws LinattnError ERR_ARGUMENT; ERR_UNSUPPORTED for FAVOR+ */
  constructor(private readonly options: WindowedLinearAttentionOptions) {
    checkOptions('WindowedLinearAttention', options);
    const { window, sinkTokens = 0, featureMap, keyFeatureMap = featureMap, windowFactors } = options;
    if (!(Number.isSafeInteger(window) && window > 0))
      fail('ERR_ARGUMENT', `window must be 1 or more, got ${shown(window)}`);
    if (!(Number.isSafeInteger(sinkTokens) && sinkTokens >= 0 && sinkTokens <= mostSinks)) {
      fail('ERR_ARGUMENT', `sinkTokens must be a whole number from 0 to ${mostSinks}, got ${shown(sinkTokens)}`);
    }
    for (const map of [featureMap, keyFeatureMap] as readonly LayerFeatureMap[]) {
      if (map?.name !== 'favor') {
        checkMap('WindowedLinearAttention', map === featureMap ? 'featureMap' : 'keyFeatureMap', map);
        continue;
      }
      fail('ERR_UNSUPPORTED', 'favor subtracts a maximum of its own, which does not cancel beside the window');
    }
    checkScale('WindowedLinearAttention', options.scale);
    checkGiven('WindowedLinearAttention', 'relativeBias', options.relativeBias);
    const isFactor = (factor: unknown) => typeof factor === 'number' && !Number.isNaN(factor);
    if (!Array.isArray(windowFactors) || windowFactors.length === 0 || !windowFactors.every(isFactor)) {
      const got = Array.isArray(windowFactors) ? `[${windowFactors.map(shown).join(', ')}]` : shown(windowFactors);
      fail('ERR_ARGUMENT', `windowFactors must be a list with a number for each query head, got ${got}`);
    }
  }

  /**
   * A sequence with `heads` key heads of `width` values, keys as wide as values.
   * @throws LinattnError ERR_ARGUMENT
   */
  createSequence(sizes: { heads: number; width: number; device?: DeviceName | undefined }): WindowedLinearSequence {
    checkOptions('WindowedLinearAttention', sizes);
    const { heads, width, device = defaultDevice() } = sizes;
    checkSizes('WindowedLinearAttention', { heads, width });
    const { window, sinkTokens, featureMap, keyFeatureMap: map = featureMap } = this.options;
    const features = paddedWidth(featureCount(map.name, map.projection?.weights[0]?.shape[0] ?? width, map.order));
    const taps = heads * Math.max(width, features) * (window + 1);
    if (taps > mostTaps) {
      fail('ERR_ARGUMENT', `heads x features x (window + 1) must be at most ${mostTaps}, got ${taps}`);
    }
    return new WindowedLinearSequence({ window, sinkTokens }, heads, width, features, device);
  }

  /**
   * The next tokens of a sequence. Any split gives the same bits on the CPU.
   * @param q [T, Hq, D], k and v [T, Hkv, D]: float32, bfloat16 or float16; D is a multiple of 8
   * @returns [T, Hq, D] as q, computed in float32
   * @throws LinattnError ERR_ARGUMENT, ERR_SHAPE, ERR_DTYPE, as softmaxAttention and linearAttention
   */
  forward(input: AttentionTokens, sequence: WindowedLinearSequence): Hidden {
    checkCall('WindowedLinearAttention', input, sequence, WindowedLinearSequence);
    const { q, k, v } = input;
    const [T = 0, Hq = 0] = q.shape;
    const { pages, keys } = sequence;
    const [, , , Hkv, D] = pages.shape as [number, number, number, number, number];
    const { window, sinkTokens = 0, windowFactors } = this.options;
    if (keys.shape[2] !== window || sequence.sinkTokens !== sinkTokens) {
      const own = (w = window, sinks = sinkTokens) => `a window of ${w} and ${sinks} sinks`;
      fail(
        'ERR_ARGUMENT',
        `the sequence must be one of ${own()}, got one of ${own(keys.shape[2], sequence.sinkTokens)}`,
      );
    }
    if (Hq !== windowFactors.length) {
      fail('ERR_SHAPE', `q must have a query head for each of ${windowFactors.length} windowFactors, got ${Hq}`);
    }
    checkTokens('WindowedLinearAttention', { q, k, v }, Hkv, D);
    return scope(() => {
      const out = Tensor.zeros({ dtype: q.dtype, shape: [T, Hq, D], device: q.device });
      const all = [q, k, v].map((x) => convert({ x, dtype: 'float32' }));
      for (let from = 0; from < T; from += turn) {
        const count = Math.min(T - from, turn);
        const [queries, keys, values] = all.map((x) => tokens(x, from, count)) as [Float32, Float32, Float32];
        convertInto({ x: this.attend(queries, keys, values, sequence), into: tokens(out, from, count) });
        sequence.length += count;
      }
      return out;
    });
  }

  private attend(q: Float32, k: Float32, v: Float32, sequence: WindowedLinearSequence): Float32 {
    const { window, sinkTokens = 0, windowFactors, affine = false, relativeBias } = this.options;
    const { scale = q.shape[2]! ** -0.5 } = this.options;
    const [T, H] = q.shape as [number, number];
    const { pages, pageTable, tableRows, length } = sequence;
    const where = { readSlots: [length === 0 ? -1 : 0], writeSlots: [0], positions: [length], device: q.device };
    const sequences = packedSequences([T], where);
    const near = softmaxAttention({
      ...{ q, k, v, pages, pageTable, tableRows, sequences, scale, window, sinkTokens, relativeBias },
      rowStatistics: true,
    });
    const far = this.attendFar(q, k, v, sequences, sequence);
    const perHead = (factors: readonly number[]): Float32 =>
      Tensor.from([...factors], { dtype: 'float32', shape: [H], device: q.device });
    const gamma = windowFactors.map((factor) => 1 / (1 + Math.exp(-factor)));
    const lambda = perHead(gamma.map((value) => (affine ? 1 - value : 1)));
    const asHeads = (x: Float32): Float32 => x.view([T, H, 1], 0, H);
    const nearSum = add({ b: asHeads(near.rowSum!), scale: perHead(gamma) });
    const total = add({ a: nearSum, b: asHeads(far.denominator), scale: lambda }).view([T, H], 0, H);
    const read = add({ a: add({ b: far.out, scale: lambda }), b: near.out, scale: nearSum.view([T, H], 0, H) });
    // divide takes the magnitude; products of a map like the identity may make the sum negative.
    const sign = divide({ x: asHeads(total), divisor: total, floor: total }).view([T, H], 0, H);
    return divide({ x: add({ b: read, scale: sign }), divisor: total, floor: total });
  }

  /** The linear part, of tokens that have left the window: features and values, w tokens late. */
  private attendFar(q: Float32, k: Float32, v: Float32, sequences: Sequences, sequence: WindowedLinearSequence) {
    const { window, sinkTokens = 0, featureMap, keyFeatureMap = featureMap } = this.options;
    const { delay, keys, values, state, keySum } = sequence;
    const late = (x: Float32, past: Float32): Float32 => {
      const [T, heads, width] = x.shape as [number, number, number];
      const channels = heads * width;
      const weight = delay.view([channels, delay.shape[1]!], 0, delay.shape[1]!);
      const out = causalConv({ x: x.view([T, channels], 0, channels), weight, state: past, sequences });
      return out.view([T, heads, width], 0, channels);
    };
    const plain = { sequences, maximum: 'none', keyMax: undefined, decay: undefined } as const;
    const features = late(keyFeatures(k, keyFeatureMap, plain).features as Float32, keys);
    // Sinks stay in the softmax and are no part of the state.
    const sinks = sinkTokens > 0 ? Math.min(q.shape[0]!, window + sinkTokens - sequence.length) : 0;
    if (sinks > 0) {
      const into = tokens(features, 0, sinks);
      convertInto({ x: Tensor.zeros({ dtype: 'float32', shape: into.shape, device: q.device }), into });
    }
    const { out, denominator } = linearAttention({
      q: queryFeatures(q, featureMap, sequences) as Float32,
      k: features,
      v: late(v, values),
      rule: { name: 'additive' },
      denominator: true,
      state,
      keySum,
      sequences,
    });
    return { out, denominator: denominator! };
  }
}

/** Tokens [from, from + count) of a contiguous [T, H, D]. */
function tokens<T extends Tensor>(x: T, from: number, count: number): T {
  const [, H, D] = x.shape as [number, number, number];
  return x.view([count, H, D], from * H * D, H * D) as T;
}
