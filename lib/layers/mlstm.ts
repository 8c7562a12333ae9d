// The matrix memory of an xLSTM: linear attention with an exponential input gate, a forget gate, and a normaliser of its own.
// Sources: https://arxiv.org/abs/2405.04517, https://arxiv.org/abs/2503.13427; the order of operations is that of Hugging Face
// transformers models/xlstm.
import { add } from '../ops/add';
import { divide } from '../ops/divide';
import { gatedActivation } from '../ops/gated-activation';
import { layerNorm } from '../ops/layer-norm';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { mlstmGates } from '../ops/mlstm-gates';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface MlstmSizes {
  readonly heads: number;
  /** K and V of a head. */
  readonly keyWidth: number;
  readonly valueWidth: number;
}

export interface MlstmWeights {
  /** [heads (2 K + 2 V + 2), C], rows q | k | v | output gate | input gate | forget gate. */
  readonly input: Weight;
  /** float32 [2 heads], input gate | forget gate. */
  readonly gateBias: Tensor<'float32'>;
  /** float32 [heads V] */
  readonly norm: Tensor<'float32'>;
  /** [C, heads V] */
  readonly output: Weight;
}

export interface MlstmOptions {
  /** Of the input and forget gates before their activations. */
  readonly gateCap: number;
  /** Beside the normaliser. */
  readonly eps: number;
  /** Of the layer norm of each head. */
  readonly normEps: number;
}

export class Mlstm implements Layer {
  private readonly state: StatePart;
  private readonly keySum: StatePart;
  private readonly maximum: StatePart;

  constructor(
    private readonly sizes: MlstmSizes,
    private readonly weights: MlstmWeights,
    private readonly options: MlstmOptions,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, keyWidth, valueWidth } = sizes;
    this.state = layout.add(`${name}.state`, [heads, valueWidth, keyWidth]);
    this.keySum = layout.add(`${name}.keySum`, [heads, keyWidth]);
    this.maximum = layout.add(`${name}.maximum`, [heads]);
  }

  forward(x: Hidden, { sequences }: Step): Hidden {
    const { heads, keyWidth, valueWidth } = this.sizes;
    const { weights, options } = this;
    const T = x.shape[0]!;
    const [keys, values] = [heads * keyWidth, heads * valueWidth];
    const fused = matmul({ x, weight: weights.input });
    const stride = fused.shape[1]!;
    const { g, keyScale, floor } = mlstmGates({
      x: fused.view([T, 2 * heads], 2 * keys + 2 * values, stride),
      bias: weights.gateBias,
      maximum: this.maximum.tensor,
      sequences,
      cap: options.gateCap,
      scale: keyWidth ** -0.5,
    });
    const { out, denominator } = linearAttention({
      q: fused.view([T, heads, keyWidth], 0, stride),
      k: add({ b: fused.view([T, heads, keyWidth], keys, stride), scale: keyScale }),
      v: fused.view([T, heads, valueWidth], 2 * keys, stride),
      rule: { name: 'additive' },
      decay: { per: 'token', g },
      denominator: true,
      state: this.state.tensor,
      keySum: this.keySum.tensor,
      sequences,
    });
    const read = divide({ x: out, divisor: denominator!, floor, eps: options.eps });
    const normed = layerNorm({ x: read, weight: weights.norm, eps: options.normEps });
    const gate = fused.view([T, values], 2 * keys + values, stride);
    const gated = gatedActivation({ x: normed.view([T, values], 0, values), gate, activation: 'sigmoid' });
    return matmul({ x: gated, weight: weights.output });
  }
}
