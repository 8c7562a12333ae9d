// causalConv: the short depthwise causal convolution before a linear attention layer, with its window as state.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Sequences, sequenceFields } from './sequences';

const op = defineOp('causalConv', {
  x: 'in',
  weight: 'in',
  bias: 'optional',
  state: 'inout',
  out: 'out',
  ...sequenceFields,
  silu: 'number',
  normChannels: 'number',
  normWidth: 'number',
  normEps: 'number',
});

const noNorm = { heads: 0, width: 0, eps: 0 };

export interface CausalConv<X> {
  /** [T, C] float32, bfloat16 or float16; the row stride is free. */
  x: X;
  /** float32 [F C, W]: F filters of all channels, one after the other; weight[f, c, W - 1] multiplies the current token. */
  weight: Tensor<'float32'>;
  /** float32 [F C] */
  bias?: Tensor<'float32'> | undefined;
  /**
   * float32 [slots, C, W - 1], the last inputs of a sequence, oldest first; updated in place, the slot stride is free.
   * Absent: every sequence starts from zeros and its window is dropped.
   */
  state?: Tensor<'float32'> | undefined;
  sequences: Sequences;
  activation?: 'silu' | undefined;
  /** The first `heads` vectors of `width` channels are then scaled to length 1, as l2Norm does with this eps. */
  l2Norm?: { readonly heads: number; readonly width: number; readonly eps: number } | undefined;
}

/**
 * out[t, f, c] = act(bias[f, c] + sum over w of weight[f, c, w] x[t - (W - 1) + w, c]), where the inputs before the
 * sequence's first token come from state[readSlot] (zeros for -1). Its last W - 1 inputs then go to state[writeSlot] (-1:
 * dropped). With l2Norm, which takes one filter, the heads' outputs are then out / sqrt(sum of out^2 over the head + eps):
 * what delta rules take as queries and keys.
 * Any split of a sequence, any company in the batch and any number of threads give the same bits.
 * @returns [T, F C] of x's dtype
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; at execution ERR_ARGUMENT for slots that are out of range or clash
 */
export function causalConv<X extends Tensor>(input: CausalConv<X>): X {
  const { x, weight, bias, state, sequences, activation, l2Norm } = op.input(input);
  const [T, C] = op.shape('x', x, ['T', 'C']) as [number, number];
  op.dtype('x', x, ['float32', 'bfloat16', 'float16']);
  const [outputs, W] = op.shape('weight', weight, ['F C', 'W']) as [number, number];
  const filters = C > 0 && outputs > 0 && outputs % C === 0 ? outputs / C : 1;
  op.expect('weight', weight, 'float32', { [filters === 1 ? 'C' : `${filters} C`]: filters * C, W });
  op.check(W >= 1, 'weight must be [C, W] with W of 1 or more, got W = 0');
  if (bias !== undefined) op.expect('bias', bias, 'float32', { [filters === 1 ? 'C' : `${filters} C`]: outputs });
  if (state !== undefined) {
    const slots = op.shape('state', state, ['slots', 'C', 'W - 1'])[0]!;
    op.expect('state', state, 'float32', { slots, C, 'W - 1': W - 1 });
  }
  op.instance('sequences', sequences, Sequences);
  op.check(sequences.tokens === T, `sequences must have the T = ${T} tokens of x, got ${sequences.tokens}`);
  op.check(activation === undefined || activation === 'silu', `activation must be 'silu', got '${shown(activation)}'`);
  const { heads, width, eps } = l2Norm === undefined ? noNorm : op.input(l2Norm, 'l2Norm');
  const whole = [heads, width].every((size) => Number.isSafeInteger(size) && size >= 0) && heads * width <= C;
  op.check(whole, `l2Norm must have heads of a width that C = ${C} channels hold, got ${shown(heads)} of ${width}`);
  op.check(Number.isFinite(eps) && eps >= 0, `l2Norm.eps must be a number of 0 or more, got ${shown(eps)}`);
  op.check(filters === 1 || heads * width === 0, `l2Norm takes one filter, got ${filters}`);
  const out = op.output(x, x.dtype, [T, outputs]);
  const norm = { normChannels: heads * width, normWidth: width, normEps: eps };
  op.run({ x, weight, bias, state, out, ...sequences.record, silu: activation === 'silu', ...norm });
  return out as X;
}

/** One sequence in float64: `state` is [C, W - 1]; returns the outputs and the window after them. */
export function causalConvReference(input: {
  x: NdArray;
  weight: NdArray;
  bias?: NdArray | undefined;
  state?: NdArray | undefined;
  silu?: boolean;
}): { out: NdArray; state: NdArray } {
  const { x, weight, bias, state, silu = false } = input;
  const [T, C] = x.shape as [number, number];
  const [outputs, W] = weight.shape as [number, number];
  const at = (t: number, c: number): number =>
    t >= 0 ? x.data[t * C + c]! : (state?.data[c * (W - 1) + t + W - 1] ?? 0);
  const out = nd([T, outputs]);
  const end = nd([C, W - 1]);
  for (let o = 0; o < outputs; o++) {
    for (let t = 0; t < T; t++) {
      let total = bias?.data[o] ?? 0;
      for (let w = 0; w < W; w++) total += weight.data[o * W + w]! * at(t - (W - 1) + w, o % C);
      out.data[t * outputs + o] = silu ? total / (1 + Math.exp(-total)) : total;
    }
  }
  for (let c = 0; c < C; c++) {
    for (let w = 0; w < W - 1; w++) end.data[c * (W - 1) + w] = at(T - (W - 1) + w, c);
  }
  return { out, state: end };
}

/** Of N sequences with T tokens in all; bytes count x and out of `width` bytes an element, the weight and the windows. */
export function causalConvCost(sizes: { N: number; T: number; C: number; W: number; width: number }): {
  bytes: number;
  flops: number;
} {
  const { N, T, C, W, width } = sizes;
  return { bytes: 2 * T * C * width + 4 * C * W + 8 * N * C * (W - 1), flops: 2 * T * C * W };
}
