// Tokens to logits: embedding, residual branches with a norm before each, final norm, head. Knows no sessions and no text.
import type { Hidden, KvLayout, Layer, StateLayout, Step } from '../layers/layer';
import { activation } from '../ops/activation';
import { add } from '../ops/add';
import { converted } from '../ops/convert';
import { embedding } from '../ops/embedding';
import type { Float } from '../ops/float';
import { gatherRows } from '../ops/gather-rows';
import { layerNorm } from '../ops/layer-norm';
import { matmul } from '../ops/matmul';
import { addRmsNorm, rmsNorm } from '../ops/rms-norm';
import type { Weight } from '../ops/weight';
import { scope } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';

/** An RMS norm, or with a bias a layer norm. */
export interface Norm {
  readonly norm: Tensor<'float32'>;
  readonly normBias?: Tensor<'float32'> | undefined;
}

/** x + branchScale layer(norm(x)); with afterNorm input norm(x) + branch layer(norm(x)). */
export interface Branch extends Norm {
  readonly layer: Layer;
  readonly afterNorm?: { readonly input: number; readonly branch: number } | undefined;
}

export interface LanguageModelParts extends Norm {
  readonly embedding: Weight;
  /** What the embedding is multiplied by, and normed with, before the first branch; by default neither. */
  readonly embeddingScale?: number | undefined;
  readonly embeddingNorm?: Norm | undefined;
  readonly branches: readonly Branch[];
  readonly head: Weight;
  /** Of the hidden states. */
  readonly activations: Float;
  readonly normEps: number;
  /** Norm weights are 1 + w. */
  readonly zeroCentred: boolean;
  /** What every branch is multiplied by before it is added; default 1. */
  readonly branchScale?: number | undefined;
  /** Logits x are cap tanh(x / cap); absent: x. */
  readonly logitCap?: number | undefined;
  readonly state: StateLayout;
  readonly kv: KvLayout;
}

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
    let branch: Hidden = converted(embedding({ ids, weight: parts.embedding }), parts.activations);
    if (parts.embeddingScale !== undefined) branch = add({ b: branch, scale: parts.embeddingScale });
    if (parts.embeddingNorm !== undefined) branch = this.normed(branch, parts.embeddingNorm, undefined).out;
    let residual: Hidden | undefined;
    for (const next of parts.branches) {
      const before: readonly (Hidden | undefined)[] = [branch, residual];
      // What a branch makes on the way is free for the next one.
      [branch, residual] = scope(() => {
        const { out, sum } = this.normed(branch, next, residual);
        const made = next.layer.forward(out, step);
        if (next.afterNorm === undefined) return [made, sum];
        const { input, branch: scale } = next.afterNorm;
        return [add({ a: input === 1 ? out : add({ b: out, scale: input }), b: made, scale }), undefined];
      });
      for (const tensor of before) if (tensor !== residual) tensor?.dispose();
    }
    return this.normed(branch, parts, residual).out;
  }

  private normed(
    x: Hidden,
    { norm: weight, normBias: bias }: Norm,
    residual: Hidden | undefined,
  ): { out: Hidden; sum: Hidden } {
    const { normEps: eps, zeroCentred, branchScale } = this.parts;
    if (bias !== undefined) {
      const sum = residual === undefined ? x : add({ a: residual, b: x, scale: branchScale ?? 1 });
      return { out: layerNorm({ x: sum, weight, bias, eps }), sum };
    }
    const input = { x, weight, eps, zeroCentred };
    return residual === undefined ? { out: rmsNorm(input), sum: x } : addRmsNorm({ ...input, residual, branchScale });
  }

  /** Logits float32 [N, vocabulary] of rows of the hidden states: of `rows` (int32 [N]), or of all. */
  logits(hidden: Hidden, rows?: Tensor<'int32'>): Tensor<'float32'> {
    const x = rows === undefined ? hidden : gatherRows({ x: hidden, rows });
    const logits = matmul({ x: converted(x, 'float32'), weight: this.parts.head });
    const { logitCap: cap } = this.parts;
    if (cap === undefined) return logits;
    return activation({ x: add({ b: logits, scale: 1 / cap }), activation: 'tanh', scale: cap });
  }
}
