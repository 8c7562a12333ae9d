// The gated feed-forward block: down(act(gate(x)) * up(x)), with gate and up as one product.
// Source: SwiGLU, https://arxiv.org/abs/2002.05202
import { gatedActivation } from '../ops/gated-activation';
import { matmul } from '../ops/matmul';
import type { Weight } from '../ops/weight';
import type { Hidden, Layer } from './layer';

export class GatedMlp implements Layer {
  /**
   * @param gateUp [2 I, C], rows of the gate first
   * @param down [C, I]
   */
  constructor(
    private readonly gateUp: Weight,
    private readonly down: Weight,
  ) {}

  forward(x: Hidden): Hidden {
    const fused = matmul({ x, weight: this.gateUp });
    return matmul({ x: gatedActivation({ x: fused, activation: 'silu' }), weight: this.down });
  }
}
