// Tokens to logits: embedding, residual branches with a norm before each, final norm, head. Knows no sessions and no text.
import type { Hidden, KvLayout, Layer, StateLayout, Step } from '../layers/layer';
import { convert } from '../ops/convert';
import { embedding } from '../ops/embedding';
import type { Float } from '../ops/float';
import { gatherRows } from '../ops/gather-rows';
import { matmul } from '../ops/matmul';
import { addRmsNorm, rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import { scope } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';

/** x + branchScale layer(norm(x)). */
export interface Branch {
  readonly norm: Tensor<'float32'>;
  readonly layer: Layer;
}

export interface LanguageModelParts {
  readonly embedding: Weight;
  readonly branches: readonly Branch[];
  readonly norm: Tensor<'float32'>;
  readonly head: Weight;
  /** Of the hidden states. */
  readonly activations: Float;
  readonly normEps: number;
  /** Norm weights are 1 + w. */
  readonly zeroCentred: boolean;
  /** What every branch is multiplied by before it is added; default 1. */
  readonly branchScale?: number | undefined;
  readonly state: StateLayout;
  readonly kv: KvLayout;
}

const as = <D extends Float>(x: Hidden, dtype: D): Tensor<D> =>
  x.dtype === dtype ? (x as Tensor<D>) : convert({ x, dtype });

export class LanguageModel {
  constructor(private readonly parts: LanguageModelParts) {}

  get state(): StateLayout {
    return this.parts.state;
  }

  get kv(): KvLayout {
    return this.parts.kv;
  }

  get vocabularySize(): number {
    return this.parts.head.shape[0]!;
  }

  /** ids int32 [T] -> hidden states after the final norm, [T, C]. */
  hidden(ids: Tensor<'int32'>, step: Step): Hidden {
    const { parts } = this;
    const norm = (x: Hidden, weight: Tensor<'float32'>, residual: Hidden | undefined): { out: Hidden; sum: Hidden } => {
      const input = { x, weight, eps: parts.normEps, zeroCentred: parts.zeroCentred };
      return residual === undefined
        ? { out: rmsNorm(input), sum: x }
        : addRmsNorm({ ...input, residual, branchScale: parts.branchScale });
    };
    let branch: Hidden = as(embedding({ ids, weight: parts.embedding }), parts.activations);
    let residual: Hidden | undefined;
    for (const next of parts.branches) {
      const before: readonly (Hidden | undefined)[] = [branch, residual];
      // What a branch makes on the way is free for the next one.
      [branch, residual] = scope(() => {
        const { out, sum } = norm(branch, next.norm, residual);
        return [next.layer.forward(out, step), sum];
      });
      for (const tensor of before) if (tensor !== residual) tensor?.dispose();
    }
    return norm(branch, parts.norm, residual).out;
  }

  /** Logits float32 [N, vocabulary] of rows of the hidden states: of `rows` (int32 [N]), or of all. */
  logits(hidden: Hidden, rows?: Tensor<'int32'>): Tensor<'float32'> {
    const x = rows === undefined ? hidden : gatherRows({ x: hidden, rows });
    return matmul({ x: as(x, 'float32'), weight: this.parts.head });
  }
}
