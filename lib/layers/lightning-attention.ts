// Lightning attention as MiniMax-01 has it: linear attention with a fixed decay a head, a norm over all heads and a gate.
// Sources: https://arxiv.org/abs/2501.08313; the order of operations is that of Hugging Face transformers models/minimax.
import { activation } from '../ops/activation';
import { gatedActivation } from '../ops/gated-activation';
import { linearAttention } from '../ops/linear-attention';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, StateLayout, StatePart, Step } from './layer';

export interface LightningAttentionSizes {
  readonly heads: number;
  /** K = V of a head. */
  readonly width: number;
  readonly normEps: number;
}

export interface LightningAttentionWeights {
  /** [4 heads width, C], rows q | k | v | output gate. */
  readonly input: Weight;
  /** [C, heads width] */
  readonly output: Weight;
  /** float32 [heads width] */
  readonly norm: Tensor<'float32'>;
  /** Natural logarithms, float32 [heads]. */
  readonly decay: Tensor<'float32'>;
}

export class LightningAttention implements Layer {
  private readonly state: StatePart;

  constructor(
    private readonly sizes: LightningAttentionSizes,
    private readonly weights: LightningAttentionWeights,
    layout: StateLayout,
    name: string,
  ) {
    const { heads, width } = sizes;
    this.state = layout.add(`${name}.state`, [heads, width, width]);
  }

  forward(x: Hidden, { sequences }: Step): Hidden {
    const { heads, width, normEps: eps } = this.sizes;
    const { input, output, norm, decay } = this.weights;
    const T = x.shape[0]!;
    const size = heads * width;
    const fused = matmul({ x, weight: input });
    const qkv = activation({ x: fused.view([T, 3 * size], 0, 4 * size), activation: 'silu' });
    const part = (i: number): Hidden => qkv.view([T, heads, width], i * size, 3 * size);
    const { out } = linearAttention({
      q: part(0),
      k: part(1),
      v: part(2),
      rule: { name: 'additive' },
      decay: { per: 'head', g: decay },
      state: this.state.tensor,
      sequences,
    });
    const normed = rmsNorm({ x: out.view([T, size], 0, size), weight: norm, eps });
    const gate = fused.view([T, size], 3 * size, 4 * size);
    return matmul({ x: gatedActivation({ x: normed, gate, activation: 'sigmoid' }), weight: output });
  }
}
