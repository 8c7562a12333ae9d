// Mamba-2: one projection, short convolution, state space duality with a scalar decay a head, skip, gated norm.
// Sources: https://arxiv.org/abs/2405.21060; the order of operations is that of Hugging Face transformers models/mamba2
// (the gate before the norm, the norm by group).
import { add } from '../ops/add';
import { causalConv } from '../ops/causal-conv';
import { stepGates } from '../ops/delta-gates';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface Mamba2Sizes {
  readonly heads: number;
  /** Heads of a group share B and C, and are normalised together. */
  readonly groups: number;
  /** P, values a head, and S, of B and C. */
  readonly headWidth: number;
  readonly stateWidth: number;
  /** Taps of the short convolution, at least 2. */
  readonly convTaps: number;
}

export interface Mamba2Weights {
  /** [N, C], rows z | x | B | C | dt. */
  readonly input: Weight;
  readonly inputBias?: Tensor<'float32'> | undefined;
  /** [C, heads * P] */
  readonly output: Weight;
  readonly outputBias?: Tensor<'float32'> | undefined;
  /** float32 [heads P + 2 groups S, taps], of x | B | C. */
  readonly conv: Tensor<'float32'>;
  readonly convBias?: Tensor<'float32'> | undefined;
  /** float32 [heads]; `skip` is D. */
  readonly aLog: Tensor<'float32'>;
  readonly dtBias: Tensor<'float32'>;
  readonly skip: Tensor<'float32'>;
  /** float32 [heads * P] */
  readonly norm: Tensor<'float32'>;
}

export interface Mamba2Options {
  readonly normEps: number;
  /** Of the step dt. */
  readonly stepLimits: readonly [number, number];
}

export class Mamba2 implements Layer {
  private readonly state: StatePart;
  private readonly window: StatePart;
  private readonly inner: number;
  private readonly convWidth: number;

  constructor(
    private readonly sizes: Mamba2Sizes,
    private readonly weights: Mamba2Weights,
    private readonly options: Mamba2Options,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, groups, headWidth, stateWidth, convTaps } = sizes;
    this.inner = heads * headWidth;
    this.convWidth = this.inner + 2 * groups * stateWidth;
    this.state = layout.add(`${name}.state`, [heads, headWidth, stateWidth]);
    this.window = layout.add(`${name}.conv`, [this.convWidth, convTaps - 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { heads, groups, headWidth, stateWidth } = this.sizes;
    const { weights, options, inner, convWidth } = this;
    const { sequences } = step;
    const T = x.shape[0]!;
    const fused = matmul({ x, weight: weights.input, bias: weights.inputBias });
    const stride = fused.shape[1]!;
    const xbc = causalConv({
      x: fused.view([T, convWidth], inner, stride),
      weight: weights.conv,
      bias: weights.convBias,
      state: this.window.tensor,
      sequences,
      activation: 'silu',
    });
    const values = xbc.view([T, heads, headWidth], 0, convWidth);
    const byGroup = (offset: number): Hidden => xbc.view([T, groups, stateWidth], offset, convWidth);
    const { g, step: dt } = stepGates({
      a: fused.view([T, heads], inner + convWidth, stride),
      aLog: weights.aLog,
      dtBias: weights.dtBias,
      min: options.stepLimits[0],
      max: options.stepLimits[1],
    });
    const { out } = linearAttention({
      q: byGroup(inner + groups * stateWidth),
      k: byGroup(inner),
      v: add({ b: values, scale: dt }),
      rule: { name: 'additive' },
      decay: { per: 'token', g },
      state: this.state.tensor,
      sequences,
    });
    const skipped = add({ a: out, b: values, scale: weights.skip });
    const normed = rmsNorm({
      x: skipped.view([T, inner], 0, inner),
      weight: weights.norm,
      eps: options.normEps,
      groupSize: inner / groups,
      gate: fused.view([T, inner], 0, stride),
      gateOrder: 'before',
    });
    return matmul({ x: normed, weight: weights.output, bias: weights.outputBias });
  }
}
