// Kimi Delta Attention: a delta rule whose state decays channel by channel. Sources: https://arxiv.org/abs/2510.26692; the
// order of operations is that of fla fla/layers/kda.py.
import { activation } from '../ops/activation';
import { add } from '../ops/add';
import { causalConv } from '../ops/causal-conv';
import { converted } from '../ops/convert';
import { stepGates } from '../ops/delta-gates';
import { l2Norm } from '../ops/l2-norm';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface KimiDeltaAttentionSizes {
  readonly keyHeads: number;
  readonly valueHeads: number;
  /** K and V. */
  readonly keyWidth: number;
  readonly valueWidth: number;
  /** Taps of the short convolution; 0 = none (then silu alone). */
  readonly convTaps: number;
  /** Of the projections of decay and output gate. */
  readonly rank: number;
}

/** The log decay from f = up(down(x)), a channel each. */
export type KimiGate =
  /** -exp(aLog) softplus(f + dtBias): aLog and dtBias float32 [valueHeads * K]. */
  | { readonly form: 'softplus'; readonly aLog: Tensor<'float32'>; readonly dtBias: Tensor<'float32'> }
  /** bound sigmoid(rate (f + dtBias)): bound < 0, rate float32 [valueHeads], dtBias float32 [valueHeads * K]. */
  | {
      readonly form: 'sigmoid';
      readonly bound: number;
      readonly rate: Tensor<'float32'>;
      readonly dtBias: Tensor<'float32'>;
    };

export interface KimiDeltaAttentionWeights {
  /** [N, C], rows q | k | v | b | down of the decay | down of the output gate. */
  readonly input: Weight;
  /** [valueHeads * K, rank] */
  readonly decayUp: Weight;
  /** [valueHeads * V, rank] and float32 [valueHeads * V] */
  readonly gateUp: Weight;
  readonly gateBias: Tensor<'float32'>;
  /** [C, valueHeads * V] */
  readonly output: Weight;
  /** float32 [2 keyHeads K + valueHeads V, taps]; absent without convolution. */
  readonly conv?: Tensor<'float32'> | undefined;
  readonly gate: KimiGate;
  /** float32 [V] */
  readonly norm: Tensor<'float32'>;
}

export interface KimiDeltaAttentionOptions {
  readonly normEps: number;
  /** beta = 2 sigmoid(b) instead of sigmoid(b). */
  readonly negativeEigenvalues: boolean;
}

const l2Eps = 1e-6;

export class KimiDeltaAttention implements Layer {
  private readonly state: StatePart;
  private readonly window: StatePart | undefined;
  private readonly qkvWidth: number;

  constructor(
    private readonly sizes: KimiDeltaAttentionSizes,
    private readonly weights: KimiDeltaAttentionWeights,
    private readonly options: KimiDeltaAttentionOptions,
    layout: StateLayout,
    name: string,
  ) {
    const { keyHeads, valueHeads, keyWidth, valueWidth, convTaps } = sizes;
    this.qkvWidth = 2 * keyHeads * keyWidth + valueHeads * valueWidth;
    this.state = layout.add(`${name}.state`, [valueHeads, valueWidth, keyWidth]);
    if (convTaps > 1) this.window = layout.add(`${name}.conv`, [this.qkvWidth, convTaps - 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { keyHeads, valueHeads, keyWidth, valueWidth, rank } = this.sizes;
    const { weights, options, qkvWidth } = this;
    const { sequences } = step;
    const T = x.shape[0]!;
    const keys = keyHeads * keyWidth;
    const values = valueHeads * valueWidth;
    const fused = matmul({ x, weight: weights.input });
    const stride = fused.shape[1]!;
    const plain = fused.view([T, qkvWidth], 0, stride);
    const { conv } = weights;
    const qkv =
      conv === undefined
        ? activation({ x: plain, activation: 'silu' })
        : causalConv({ x: plain, weight: conv, state: this.window?.tensor, sequences, activation: 'silu' });
    const qk = l2Norm({ x: qkv.view([T, 2 * keyHeads, keyWidth], 0, qkvWidth), eps: l2Eps });
    const b = fused.view([T, valueHeads], qkvWidth, stride);
    const betaScale = options.negativeEigenvalues ? 2 : 1;
    const low = (offset: number): Hidden => fused.view([T, rank], qkvWidth + valueHeads + offset, stride);
    const { out } = linearAttention({
      q: qk.view([T, keyHeads, keyWidth], 0, 2 * keys),
      k: qk.view([T, keyHeads, keyWidth], keys, 2 * keys),
      v: qkv.view([T, valueHeads, valueWidth], 2 * keys, qkvWidth),
      rule: {
        name: 'delta',
        beta: converted(activation({ x: b, activation: 'sigmoid', scale: betaScale }), 'float32'),
      },
      decay: { per: 'channel', g: this.decay(low(0)) },
      scale: keyWidth ** -0.5,
      state: this.state.tensor,
      sequences,
    });
    const gate = matmul({ x: low(rank), weight: weights.gateUp, bias: weights.gateBias });
    const normed = rmsNorm({
      x: out,
      weight: weights.norm,
      eps: options.normEps,
      gate: gate.view([T, valueHeads, valueWidth], 0, values),
      gateActivation: 'sigmoid',
    });
    return matmul({ x: normed.view([T, values], 0, values), weight: weights.output });
  }

  /** [T, valueHeads, K] */
  private decay(low: Hidden): Tensor {
    const { valueHeads, keyWidth } = this.sizes;
    const { gate, decayUp: weight } = this.weights;
    const channels = valueHeads * keyWidth;
    const byHead = (tensor: Tensor): Tensor => tensor.view([low.shape[0]!, valueHeads, keyWidth], 0, channels);
    if (gate.form === 'softplus') {
      return byHead(stepGates({ a: matmul({ x: low, weight }), aLog: gate.aLog, dtBias: gate.dtBias }).g);
    }
    const f = byHead(matmul({ x: low, weight, bias: gate.dtBias })) as Hidden;
    return activation({ x: add({ b: f, scale: gate.rate }), activation: 'sigmoid', scale: gate.bound });
  }
}
