// HGRN2: a gated recurrence whose keys are what its gates forget, with a lower bound of what a layer keeps. Sources:
// https://arxiv.org/abs/2404.07904; the order of operations is that of fla fla/layers/hgrn2.py.
import { activation } from '../ops/activation';
import { add } from '../ops/add';
import { causalConv } from '../ops/causal-conv';
import { gatedActivation } from '../ops/gated-activation';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface Hgrn2Sizes {
  readonly heads: number;
  /** K and V of a head; heads * width = C. */
  readonly width: number;
  /** Taps of the short convolution; 0 = none. */
  readonly convTaps: number;
  readonly normEps: number;
}

export interface Hgrn2Weights {
  /** [3 C, C], rows q | f | i. */
  readonly input: Weight;
  /** [C, C] */
  readonly output: Weight;
  /** float32 [3 C, taps], without an activation of its own. */
  readonly conv?: Tensor<'float32'> | undefined;
  /** [C], of the activations' dtype: 1 - bound, what a gate can forget at most; and zeros. */
  readonly most: Hidden;
  readonly zeros: Hidden;
  /** [C], of the activations' dtype: ln bound; absent: a bound of 0. */
  readonly logBound?: Hidden | undefined;
  /** float32 [C] */
  readonly norm: Tensor<'float32'>;
}

export class Hgrn2 implements Layer {
  private readonly state: StatePart;
  private readonly window: StatePart | undefined;

  constructor(
    private readonly sizes: Hgrn2Sizes,
    private readonly weights: Hgrn2Weights,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, width, convTaps } = sizes;
    this.state = layout.add(`${name}.state`, [heads, width, width]);
    if (convTaps > 1) this.window = layout.add(`${name}.conv`, [3 * heads * width, convTaps - 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { heads, width, normEps: eps } = this.sizes;
    const { weights } = this;
    const { sequences } = step;
    const [T, C] = x.shape as [number, number];
    const plain = matmul({ x, weight: weights.input });
    const { conv } = weights;
    const qfi =
      conv === undefined ? plain : causalConv({ x: plain, weight: conv, state: this.window?.tensor, sequences });
    const part = (i: number): Hidden => qfi.view([T, C], i * C, 3 * C);
    const byHead = (tensor: Hidden): Hidden => tensor.view([T, heads, width], 0, C);
    const f = part(1);
    // k = (1 - bound)(1 - sigmoid(f)), and e^g = 1 - k.
    const [most, zeros] = [this.everyRow(weights.most, T), this.everyRow(weights.zeros, T)];
    const k = gatedActivation({ x: zeros, gate: f, base: most, activation: 'sigmoid' });
    const { out } = linearAttention({
      q: byHead(activation({ x: part(0), activation: 'silu' })),
      k: byHead(k),
      v: qfi.view([T, heads, width], 2 * C, 3 * C),
      rule: { name: 'additive' },
      decay: { per: 'channel', g: byHead(this.logDecay(f, T)) },
      scale: width ** -0.5,
      state: this.state.tensor,
      sequences,
    });
    const normed = rmsNorm({ x: out.view([T, C], 0, C), weight: weights.norm, eps });
    return matmul({ x: normed, weight: weights.output });
  }

  /** ln(bound + (1 - bound) sigmoid(f)) = logSigmoid(f) - logSigmoid(f - ln bound): (1 + bound e^-f) / (1 + e^-f). */
  private logDecay(f: Hidden, T: number): Hidden {
    const free = activation({ x: f, activation: 'logSigmoid' });
    const { logBound } = this.weights;
    if (logBound === undefined) return free;
    const raised = add({ a: f, b: this.everyRow(logBound, T), scale: -1 });
    return add({ a: free, b: activation({ x: raised, activation: 'logSigmoid' }), scale: -1 });
  }

  /** [C] as [T, C]. */
  private everyRow(vector: Hidden, T: number): Hidden {
    return vector.view([T, vector.shape[0]!], 0, 0);
  }
}
