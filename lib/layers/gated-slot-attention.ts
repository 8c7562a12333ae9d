// Gated slot attention: softmax over a fixed number of slots, which two gated recurrences fill. Sources:
// https://arxiv.org/abs/2409.07146; the order of operations is that of fla fla/layers/gsa.py.
import { activation } from '../ops/activation';
import { add } from '../ops/add';
import { causalConv } from '../ops/causal-conv';
import { featureMap } from '../ops/feature-map';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface GatedSlotAttentionSizes {
  readonly heads: number;
  /** A divisor of heads; heads with one key and value share their slots. */
  readonly kvHeads: number;
  /** K and V of a head. */
  readonly keyWidth: number;
  readonly valueWidth: number;
  /** M of a head. */
  readonly slots: number;
  /** Taps of the short convolution; 0 = none. */
  readonly convTaps: number;
  /** Of the logarithm of a gate. */
  readonly gateDivisor: number;
  /** Of queries and keys. */
  readonly featureMap: 'silu' | 'relu';
  readonly normEps: number;
}

export interface GatedSlotAttentionWeights {
  /** [heads K + kvHeads (K + V + M), C], rows q | k | v | gate. */
  readonly input: Weight;
  /** [C, heads V] */
  readonly output: Weight;
  /** float32 [heads K + kvHeads (K + V), taps], followed by silu; absent: neither. */
  readonly conv?: Tensor<'float32'> | undefined;
  /** float32 [heads V] */
  readonly norm: Tensor<'float32'>;
  /** [M], of the activations' dtype. */
  readonly ones: Hidden;
}

/**
 * With g = logSigmoid(gate) / divisor and s = 1 - e^g, of M slots a head:
 *
 *     keys_t = keys_(t-1) diag(e^g) + k s',   p = softmax(keys_t' q)
 *     values_t = diag(e^g) values_(t-1) + s v',   out = values_t' p
 */
export class GatedSlotAttention implements Layer {
  private readonly keys: StatePart;
  private readonly values: StatePart;
  private readonly window: StatePart | undefined;
  private readonly qkvWidth: number;

  constructor(
    private readonly sizes: GatedSlotAttentionSizes,
    private readonly weights: GatedSlotAttentionWeights,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, kvHeads, keyWidth, valueWidth, slots, convTaps } = sizes;
    this.qkvWidth = heads * keyWidth + kvHeads * (keyWidth + valueWidth);
    this.keys = layout.add(`${name}.keys`, [kvHeads, slots, keyWidth]);
    this.values = layout.add(`${name}.values`, [kvHeads, valueWidth, slots]);
    if (convTaps > 1) this.window = layout.add(`${name}.conv`, [this.qkvWidth, convTaps - 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { heads, kvHeads, valueWidth, slots, normEps: eps } = this.sizes;
    const { weights, qkvWidth } = this;
    const { sequences } = step;
    const T = x.shape[0]!;
    const fused = matmul({ x, weight: weights.input });
    const stride = fused.shape[1]!;
    const { q, k, v } = this.queriesKeysValues(fused, step);
    const { g, s } = this.gates(fused.view([T, kvHeads * slots], qkvWidth, stride));
    const rule = { name: 'additive' } as const;
    const { out: scores } = linearAttention({
      q,
      k,
      v: s,
      rule,
      decay: { per: 'value', g },
      state: this.keys.tensor,
      sequences,
    });
    const { out } = linearAttention({
      q: featureMap({ x: scores, name: 'softmax' }),
      k: s,
      v,
      rule,
      decay: { per: 'channel', g },
      state: this.values.tensor,
      sequences,
    });
    const flat = activation({ x: out.view([T, heads * valueWidth], 0, heads * valueWidth), activation: 'silu' });
    return matmul({ x: rmsNorm({ x: flat, weight: weights.norm, eps }), weight: weights.output });
  }

  /** q [T, heads, K], k [T, kvHeads, K], v [T, kvHeads, V], behind the convolution, the feature map and silu. */
  private queriesKeysValues(fused: Hidden, { sequences }: Step): { q: Hidden; k: Hidden; v: Hidden } {
    const { heads, kvHeads, keyWidth, valueWidth, featureMap: map } = this.sizes;
    const { conv } = this.weights;
    const { qkvWidth } = this;
    const [T, stride] = fused.shape as [number, number];
    const plain = fused.view([T, qkvWidth], 0, stride);
    const mixed =
      conv === undefined
        ? plain
        : causalConv({ x: plain, weight: conv, state: this.window?.tensor, sequences, activation: 'silu' });
    const mixedStride = conv === undefined ? stride : qkvWidth;
    const valueOffset = (heads + kvHeads) * keyWidth;
    const mapped = (count: number, width: number, offset: number, by: 'silu' | 'relu'): Hidden => {
      const size = count * width;
      const out = activation({ x: mixed.view([T, size], offset, mixedStride), activation: by });
      return out.view([T, count, width], 0, size);
    };
    const v = mapped(kvHeads, valueWidth, valueOffset, 'silu');
    const both = mapped(heads + kvHeads, keyWidth, 0, map);
    const part = (count: number, offset: number): Hidden => both.view([T, count, keyWidth], offset, valueOffset);
    return { q: part(heads, 0), k: part(kvHeads, heads * keyWidth), v };
  }

  /** g and s, [T, kvHeads, M]. */
  private gates(raw: Hidden): { g: Hidden; s: Hidden } {
    const { kvHeads, slots, gateDivisor } = this.sizes;
    const T = raw.shape[0]!;
    const size = kvHeads * slots;
    const g = activation({ x: raw, activation: 'logSigmoid', scale: 1 / gateDivisor });
    const kept = featureMap({ x: g.view([T * kvHeads, 1, slots], 0, slots), name: 'exp' });
    const ones = this.weights.ones.view([T * kvHeads, slots], 0, 0);
    const s = add({ a: ones, b: kept.view([T * kvHeads, slots], 0, slots), scale: -1 });
    return { g: g.view([T, kvHeads, slots], 0, size), s: s.view([T, kvHeads, slots], 0, size) };
  }
}
