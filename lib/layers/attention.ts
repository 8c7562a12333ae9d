// Causal softmax attention over paged keys and values: all of them, or a sliding window.
// The order of operations follows Hugging Face transformers models/qwen3_5 (norm of q and k before RoPE, sigmoid gate on
// the output before its projection) and fla fla/layers/attn.py.
import { gatedActivation } from '../ops/gated-activation';
import { matmul } from '../ops/matmul';
import { rmsNorm } from '../ops/rms-norm';
import { rope, ropeInverseFrequencies } from '../ops/rope';
import { softmaxAttention } from '../ops/softmax-attention';
import type { Weight } from '../ops/weight';
import type { DeviceName } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import type { Hidden, KvLayout, KvPart, Layer, Step } from './layer';

export interface AttentionSizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly width: number;
  /** Tokens that a token sees, itself included; 0 = all. */
  readonly window: number;
}

export interface AttentionWeights {
  /** [N, C], rows q | k | v | gate (when gated), each by head. */
  readonly input: Weight;
  readonly inputBias?: Tensor<'float32'> | undefined;
  /** [C, heads * width] */
  readonly output: Weight;
  /** float32 [width]; absent: no norm of q and k. */
  readonly queryNorm?: Tensor<'float32'> | undefined;
  readonly keyNorm?: Tensor<'float32'> | undefined;
  /** float32 [rotary / 2]; absent: no positions. */
  readonly inverseFrequencies?: Tensor<'float32'> | undefined;
}

export interface AttentionOptions {
  readonly normEps: number;
  /** Norm weights are 1 + w. */
  readonly zeroCentred: boolean;
  /** The output times sigmoid(gate). */
  readonly gated: boolean;
  /** Of the scores; default width ** -0.5. */
  readonly scale?: number | undefined;
}

export class Attention implements Layer {
  private readonly kv: KvPart;

  constructor(
    private readonly sizes: AttentionSizes,
    private readonly weights: AttentionWeights,
    private readonly options: AttentionOptions,
    layout: KvLayout,
  ) {
    this.kv = layout.add(sizes.window, sizes.kvHeads, sizes.width);
  }

  forward(x: Hidden, step: Step): Hidden {
    const { heads, kvHeads, width, window } = this.sizes;
    const { weights, options } = this;
    const T = x.shape[0]!;
    const fused = matmul({ x, weight: weights.input, bias: weights.inputBias });
    const stride = fused.shape[1]!;
    const part = (count: number, offset: number): Hidden => fused.view([T, count, width], offset, stride);
    const turned = (tensor: Hidden, norm: Tensor<'float32'> | undefined): Hidden => {
      const { normEps: eps, zeroCentred } = options;
      const x = norm === undefined ? tensor : rmsNorm({ x: tensor, weight: norm, eps, zeroCentred });
      const { inverseFrequencies } = weights;
      if (inverseFrequencies === undefined) return x;
      return rope({ x, inverseFrequencies, pairing: 'half', sequences: step.sequences });
    };
    const { out } = softmaxAttention({
      q: turned(part(heads, 0), weights.queryNorm),
      k: turned(part(kvHeads, heads * width), weights.keyNorm),
      v: part(kvHeads, (heads + kvHeads) * width),
      pages: this.kv.pages,
      pageTable: this.kv.table,
      tableRows: step.rows,
      sequences: step.sequences,
      scale: options.scale ?? width ** -0.5,
      window,
    });
    const flat = out.view([T, heads * width], 0, heads * width);
    const gate = (): Hidden => fused.view([T, heads * width], (heads + 2 * kvHeads) * width, stride);
    return matmul({
      x: options.gated ? gatedActivation({ x: flat, gate: gate(), activation: 'sigmoid' }) : flat,
      weight: weights.output,
    });
  }
}

/** float32 [rotary / 2]: theta^(-2 i / rotary), as Hugging Face rounds it. */
export const inverseFrequencies = (rotary: number, theta: number, device: DeviceName): Tensor<'float32'> =>
  Tensor.from(ropeInverseFrequencies(theta, rotary), { dtype: 'float32', shape: [rotary / 2], device });
