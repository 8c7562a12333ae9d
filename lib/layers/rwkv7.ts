// RWKV-7: time mixing (token shift, low-rank gates, generalised delta rule, group norm, bonus) and channel mixing.
// Sources: https://arxiv.org/abs/2503.14456; the order of operations is that of RWKV-LM RWKV-v7/rwkv_v7_numpy.py.
import { activation } from '../ops/activation';
import { add } from '../ops/add';
import { causalConv } from '../ops/causal-conv';
import { gatedActivation } from '../ops/gated-activation';
import { layerNorm } from '../ops/layer-norm';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rwkvKeys } from '../ops/rwkv-keys';
import type { Weight } from '../ops/weight';
import { leave } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

/** up act(down x) + bias */
export interface LowRank {
  /** [rank, C] and [C, rank] */
  readonly down: Weight;
  readonly up: Weight;
  /** float32 [C] */
  readonly bias?: Tensor<'float32'> | undefined;
}

export interface TimeMixWeights {
  /** float32 [6 C, 2]: for r, w, k, v, a and g what the token before counts, then the token itself. */
  readonly shift: Tensor<'float32'>;
  /** [C, C] */
  readonly receptance: Weight;
  readonly key: Weight;
  readonly value: Weight;
  readonly output: Weight;
  readonly decay: LowRank;
  readonly rate: LowRank;
  readonly gate: LowRank;
  /** How much of the first layer's values; absent in the first layer. */
  readonly mixture?: LowRank | undefined;
  /** float32 [H, K]: k_k, k_a and r_k. */
  readonly keyScale: Tensor<'float32'>;
  readonly keyMix: Tensor<'float32'>;
  readonly bonusWeight: Tensor<'float32'>;
  /** float32 [C], of the group norm. */
  readonly norm: Tensor<'float32'>;
  readonly normBias: Tensor<'float32'>;
}

/** The first layer's values, which all others mix in: they live from that layer to the last. */
export class FirstValues {
  private values: Hidden | undefined;

  constructor(private readonly layers: number) {}

  /** Takes `values` out of the scope that would free them. */
  keep(values: Hidden): void {
    if (this.layers === 1) return;
    leave(values);
    values.keep();
    this.values = values;
  }

  use<T>(layer: number, body: (values: Hidden) => T): T {
    const values = this.values!;
    const result = body(values);
    if (layer + 1 === this.layers) {
      values.dispose();
      this.values = undefined;
    }
    return result;
  }
}

const decayScale = -Math.exp(-0.5);

export class TimeMix implements Layer {
  private readonly state: StatePart;
  private readonly before: StatePart;

  constructor(
    private readonly sizes: { readonly heads: number; readonly width: number; readonly normEps: number },
    private readonly weights: TimeMixWeights,
    private readonly first: FirstValues,
    private readonly index: number,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, width } = sizes;
    this.state = layout.add(`${name}.state`, [heads, width, width]);
    this.before = layout.add(`${name}.shift`, [heads * width, 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { heads, width, normEps } = this.sizes;
    const { weights } = this;
    const { sequences } = step;
    const [T, C] = x.shape as [number, number];
    const byHead = (tensor: Hidden): Hidden => tensor.view([T, heads, width], 0, C);
    const mixed = causalConv({ x, weight: weights.shift, state: this.before.tensor, sequences });
    const [xr, xw, xk, xv, xa, xg] = Array.from({ length: 6 }, (_, i) => mixed.view([T, C], i * C, 6 * C)) as Six;
    const r = byHead(matmul({ x: xr, weight: weights.receptance }));
    const k = byHead(matmul({ x: xk, weight: weights.key }));
    const v = this.values(xv);
    const g = activation({ x: lowRank(xw, weights.decay, 'tanh'), activation: 'sigmoid', scale: decayScale });
    const { keyScale, keyMix, bonusWeight } = weights;
    const keys = rwkvKeys({ r, k, a: byHead(lowRank(xa, weights.rate)), keyScale, keyMix, bonusWeight });
    const { out } = linearAttention({
      q: r,
      k: keys.key,
      v: byHead(v),
      rule: { name: 'lowRank', a: keys.read, b: keys.write },
      decay: { per: 'channel', g: byHead(g) },
      state: this.state.tensor,
      sequences,
    });
    const normed = layerNorm({ x: out, weight: weights.norm, bias: weights.normBias, eps: normEps });
    const raised = add({ a: normed, b: byHead(v), scale: keys.bonus });
    const gate = lowRank(xg, weights.gate, 'sigmoid');
    const gated = gatedActivation({ x: raised.view([T, C], 0, C), gate, activation: 'identity' });
    return matmul({ x: gated, weight: weights.output });
  }

  private values(x: Hidden): Hidden {
    const own = matmul({ x, weight: this.weights.value });
    const { mixture } = this.weights;
    if (mixture === undefined) {
      this.first.keep(own);
      return own;
    }
    const gate = lowRank(x, mixture);
    return this.first.use(this.index, (first) => gatedActivation({ x: first, gate, base: own, activation: 'sigmoid' }));
  }
}

type Six = [Hidden, Hidden, Hidden, Hidden, Hidden, Hidden];

function lowRank(x: Hidden, { down, up, bias }: LowRank, between?: 'tanh' | 'sigmoid'): Hidden {
  const low = matmul({ x, weight: down });
  return matmul({ x: between === undefined ? low : activation({ x: low, activation: between }), weight: up, bias });
}

export class ChannelMix implements Layer {
  private readonly before: StatePart;

  /**
   * @param shift float32 [C, 2]: what the token before counts, then the token itself
   * @param key [I, C]
   * @param value [C, I]
   */
  constructor(
    private readonly shift: Tensor<'float32'>,
    private readonly key: Weight,
    private readonly value: Weight,
    channels: number,
    layout: StateLayout,
    name: string,
  ) {
    this.before = layout.add(`${name}.shift`, [channels, 1]);
  }

  forward(x: Hidden, step: Step): Hidden {
    const mixed = causalConv({ x, weight: this.shift, state: this.before.tensor, sequences: step.sequences });
    const inner = activation({ x: matmul({ x: mixed, weight: this.key }), activation: 'relu2' });
    return matmul({ x: inner, weight: this.value });
  }
}
