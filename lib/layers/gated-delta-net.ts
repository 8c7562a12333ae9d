// Gated DeltaNet, and DeltaNet, which has no decay: projections, short convolution, gates, delta rule, gated norm.
// Sources: https://arxiv.org/abs/2412.06464, https://arxiv.org/abs/2406.06484; the order of operations follows Hugging Face transformers
// models/qwen3_5 and fla fla/layers/gated_deltanet.py, which agree.
import { activation } from '../ops/activation';
import { causalConv } from '../ops/causal-conv';
import { converted } from '../ops/convert';
import { deltaGates } from '../ops/delta-gates';
import { l2Norm } from '../ops/l2-norm';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface GatedDeltaNetSizes {
  readonly keyHeads: number;
  readonly valueHeads: number;
  /** K and V. */
  readonly keyWidth: number;
  readonly valueWidth: number;
  /** Taps of the short convolution; 0 = none (then silu alone). */
  readonly convTaps: number;
}

export interface GatedDeltaNetWeights {
  /** [N, C], rows q | k | v | z (when gated) | b | a (when it decays). */
  readonly input: Weight;
  /** [C, valueHeads * V] */
  readonly output: Weight;
  /** float32 [2 keyHeads K + valueHeads V, taps]; absent without convolution. */
  readonly conv?: Tensor<'float32'> | undefined;
  /** float32 [valueHeads] each; absent: no decay. */
  readonly decay?: { readonly aLog: Tensor<'float32'>; readonly dtBias: Tensor<'float32'> } | undefined;
  /** float32 [V], plain (not 1 + w). */
  readonly norm: Tensor<'float32'>;
}

export interface GatedDeltaNetOptions {
  readonly normEps: number;
  /** Activation of the output gate z, or none. */
  readonly gate: 'silu' | 'sigmoid' | 'none';
  /** beta = 2 sigmoid(b) instead of sigmoid(b). */
  readonly negativeEigenvalues: boolean;
}

const l2Eps = 1e-6;

export class GatedDeltaNet implements Layer {
  private readonly state: StatePart;
  private readonly window: StatePart | undefined;
  private readonly qkvWidth: number;

  constructor(
    private readonly sizes: GatedDeltaNetSizes,
    private readonly weights: GatedDeltaNetWeights,
    private readonly options: GatedDeltaNetOptions,
    layout: StateLayout,
    name: string,
  ) {
    const { keyHeads, valueHeads, keyWidth, valueWidth, convTaps } = sizes;
    this.qkvWidth = 2 * keyHeads * keyWidth + valueHeads * valueWidth;
    this.state = layout.add(`${name}.state`, [Math.max(keyHeads, valueHeads), valueWidth, keyWidth]);
    if (convTaps > 1) this.window = layout.add(`${name}.conv`, [this.qkvWidth, convTaps - 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { valueHeads, keyWidth, valueWidth } = this.sizes;
    const { weights, options } = this;
    const T = x.shape[0]!;
    const values = valueHeads * valueWidth;
    const fused = matmul({ x, weight: weights.input });
    const stride = fused.shape[1]!;
    const { q, k, v } = this.queriesKeysValues(fused.view([T, this.qkvWidth], 0, stride), step);
    const gated = options.gate !== 'none';
    const small = this.qkvWidth + (gated ? values : 0);
    const b = fused.view([T, valueHeads], small, stride);
    const betaScale = options.negativeEigenvalues ? 2 : 1;
    const { g, beta } =
      weights.decay === undefined
        ? { g: undefined, beta: converted(activation({ x: b, activation: 'sigmoid', scale: betaScale }), 'float32') }
        : deltaGates({ b, a: fused.view([T, valueHeads], small + valueHeads, stride), ...weights.decay, betaScale });
    const { out } = linearAttention({
      q,
      k,
      v,
      rule: { name: 'delta', beta },
      decay: g && { per: 'token', g },
      scale: keyWidth ** -0.5,
      state: this.state.tensor,
      sequences: step.sequences,
    });
    const normed = rmsNorm({
      x: out,
      weight: weights.norm,
      eps: options.normEps,
      ...(gated && {
        gate: fused.view([T, valueHeads, valueWidth], this.qkvWidth, stride),
        gateOrder: 'after' as const,
        gateActivation: options.gate as 'silu' | 'sigmoid',
      }),
    });
    return matmul({ x: normed.view([T, values], 0, values), weight: weights.output });
  }

  /** What the delta rule takes, from the projection [T, q | k | v]: the convolution, silu, and q and k of length 1. */
  private queriesKeysValues(x: Hidden, step: Step): { q: Hidden; k: Hidden; v: Hidden } {
    const { keyHeads, valueHeads, keyWidth, valueWidth } = this.sizes;
    const { conv } = this.weights;
    const T = x.shape[0]!;
    const keys = keyHeads * keyWidth;
    const split = (qk: Hidden, qkv: Hidden): { q: Hidden; k: Hidden; v: Hidden } => ({
      q: qk.view([T, keyHeads, keyWidth], 0, qk.shape[1]!),
      k: qk.view([T, keyHeads, keyWidth], keys, qk.shape[1]!),
      v: qkv.view([T, valueHeads, valueWidth], 2 * keys, this.qkvWidth),
    });
    const norm = { heads: 2 * keyHeads, width: keyWidth, eps: l2Eps };
    if (conv !== undefined) {
      const state = this.window?.tensor;
      const out = causalConv({
        x,
        weight: conv,
        state,
        sequences: step.sequences,
        activation: 'silu',
        l2Norm: norm,
      });
      return split(out, out);
    }
    const qkv = activation({ x, activation: 'silu' });
    const qk = l2Norm({ x: qkv.view([T, norm.heads, keyWidth], 0, this.qkvWidth), eps: l2Eps });
    return split(qk.view([T, 2 * keys], 0, 2 * keys), qkv);
  }
}
