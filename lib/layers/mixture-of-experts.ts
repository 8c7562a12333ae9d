// A mixture of gated feed-forward blocks: each token goes to some experts, and to a shared one where there is one.
// Sources: https://arxiv.org/abs/1701.06538; the order of operations is that of Hugging Face transformers
// models/qwen3_next (sigmoid gate of the shared expert) and models/granitemoehybrid (none).
import { activation } from '../ops/activation';
import { add } from '../ops/add';
import { converted } from '../ops/convert';
import { gatedActivation } from '../ops/gated-activation';
import { groupedMatmul } from '../ops/grouped-matmul';
import { matmul } from '../ops/matmul';
import { type RouteOptions, route } from '../ops/route';
import type { Weight } from '../ops/weight';
import { weightedSum } from '../ops/weighted-sum';
import type { Tensor } from '../tensor/tensor';
import type { Hidden, Layer, Step } from './layer';

export interface MixtureWeights {
  /** [experts, C] */
  readonly router: Weight;
  /** float32 [experts], of the choice alone. */
  readonly routerBias?: Tensor<'float32'> | undefined;
  /** [experts * 2 I, C]: an expert's rows of the gate, then those that it gates. */
  readonly gateUp: Weight;
  /** [experts * C, I] */
  readonly down: Weight;
  /** What every token goes through as well. */
  readonly shared?: Layer | undefined;
  /** [1, C]: the shared output times sigmoid of it. */
  readonly sharedGate?: Weight | undefined;
}

export class MixtureOfExperts implements Layer {
  constructor(
    private readonly weights: MixtureWeights,
    private readonly experts: number,
    private readonly options: RouteOptions,
  ) {}

  forward(x: Hidden, step: Step): Hidden {
    const { weights: own, experts } = this;
    const { ids, weights } = route({
      logits: matmul({ x, weight: own.router }),
      bias: own.routerBias,
      ...this.options,
    });
    const fused = groupedMatmul({ x, ids, weight: own.gateUp, experts });
    const made = groupedMatmul({
      x: gatedActivation({ x: fused, activation: 'silu' }),
      ids,
      weight: own.down,
      experts,
    });
    return weightedSum({ x: made, weights, base: this.shared(x, step) });
  }

  private shared(x: Hidden, step: Step): Hidden | undefined {
    const { shared, sharedGate } = this.weights;
    const out = shared?.forward(x, step);
    if (out === undefined || sharedGate === undefined) return out;
    const [T, C] = x.shape as [number, number];
    const gate = activation({ x: matmul({ x, weight: sharedGate }), activation: 'sigmoid' });
    return add({ b: out.view([T, 1, C], 0, C), scale: converted(gate, 'float32') }).view([T, C], 0, C);
  }
}
