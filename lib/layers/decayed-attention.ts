// Linear attention whose state decays by itself: by a fixed rate a head (RetNet) or by a gate a channel (gated linear
// attention). Sources: https://arxiv.org/abs/2307.08621, https://arxiv.org/abs/2312.06635; the order of operations is that
// of fla fla/layers/multiscale_retention.py and fla/layers/gla.py, which agree.
import { activation } from '../ops/activation';
import { causalConv } from '../ops/causal-conv';
import { type LogDecay, linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import { rope } from '../ops/rope';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface DecayedAttentionSizes {
  readonly heads: number;
  /** A divisor of heads; heads with one key and value share a state. */
  readonly kvHeads: number;
  /** K and V of a head. */
  readonly keyWidth: number;
  readonly valueWidth: number;
  /** Taps of the short convolution; 0 = none. */
  readonly convTaps: number;
}

export type Decay =
  /** Natural logarithms, float32 [kvHeads]. */
  | { readonly per: 'head'; readonly g: Tensor<'float32'> }
  /** logSigmoid(up down(x) + bias) / divisor: `down` is in the input, up [kvHeads K, rank], bias float32 [kvHeads K]. */
  | {
      readonly per: 'channel';
      readonly up: Weight;
      readonly bias: Tensor<'float32'>;
      readonly rank: number;
      readonly divisor: number;
    };

export interface DecayedAttentionWeights {
  /** [N, C], rows q | k | v | output gate (when gated) | down of the decay (when per channel). */
  readonly input: Weight;
  /** [C, heads * V] */
  readonly output: Weight;
  /** float32 [heads K + kvHeads (K + V), taps], followed by silu; absent: neither. */
  readonly conv?: Tensor<'float32'> | undefined;
  /** float32 [V] */
  readonly norm: Tensor<'float32'>;
  readonly decay: Decay;
  /** float32 [K / 2]; absent: no positions. */
  readonly inverseFrequencies?: Tensor<'float32'> | undefined;
}

export interface DecayedAttentionOptions {
  readonly normEps: number;
  /** The normed output times silu(gate). */
  readonly gated: boolean;
}

export class DecayedAttention implements Layer {
  private readonly state: StatePart;
  private readonly window: StatePart | undefined;
  private readonly qkvWidth: number;

  constructor(
    private readonly sizes: DecayedAttentionSizes,
    private readonly weights: DecayedAttentionWeights,
    private readonly options: DecayedAttentionOptions,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, kvHeads, keyWidth, valueWidth, convTaps } = sizes;
    this.qkvWidth = heads * keyWidth + kvHeads * (keyWidth + valueWidth);
    this.state = layout.add(`${name}.state`, [kvHeads, valueWidth, keyWidth]);
    if (convTaps > 1) this.window = layout.add(`${name}.conv`, [this.qkvWidth, convTaps - 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { heads, kvHeads, keyWidth, valueWidth } = this.sizes;
    const { weights, options, qkvWidth } = this;
    const { sequences } = step;
    const T = x.shape[0]!;
    const values = heads * valueWidth;
    const fused = matmul({ x, weight: weights.input });
    const stride = fused.shape[1]!;
    const plain = fused.view([T, qkvWidth], 0, stride);
    const { conv, inverseFrequencies } = weights;
    const qkv =
      conv === undefined
        ? plain
        : causalConv({ x: plain, weight: conv, state: this.window?.tensor, sequences, activation: 'silu' });
    const qkvStride = conv === undefined ? stride : qkvWidth;
    const part = (count: number, width: number, offset: number): Hidden =>
      qkv.view([T, count, width], offset, qkvStride);
    const turned = (tensor: Hidden): Hidden =>
      inverseFrequencies === undefined ? tensor : rope({ x: tensor, inverseFrequencies, pairing: 'half', sequences });
    const { out } = linearAttention({
      q: turned(part(heads, keyWidth, 0)),
      k: turned(part(kvHeads, keyWidth, heads * keyWidth)),
      v: part(kvHeads, valueWidth, (heads + kvHeads) * keyWidth),
      rule: { name: 'additive' },
      decay: this.decay(fused, qkvWidth + (options.gated ? values : 0)),
      scale: keyWidth ** -0.5,
      state: this.state.tensor,
      sequences,
    });
    const normed = rmsNorm({
      x: out,
      weight: weights.norm,
      eps: options.normEps,
      ...(options.gated && { gate: fused.view([T, heads, valueWidth], qkvWidth, stride) }),
    });
    return matmul({ x: normed.view([T, values], 0, values), weight: weights.output });
  }

  private decay(fused: Hidden, offset: number): LogDecay {
    const { decay } = this.weights;
    if (decay.per === 'head') return decay;
    const { kvHeads, keyWidth } = this.sizes;
    const [T, stride] = fused.shape as [number, number];
    const raw = matmul({ x: fused.view([T, decay.rank], offset, stride), weight: decay.up, bias: decay.bias });
    const g = activation({ x: raw, activation: 'logSigmoid', scale: 1 / decay.divisor });
    return { per: 'channel', g: g.view([T, kvHeads, keyWidth], 0, kvHeads * keyWidth) };
  }
}
