// rmsNorm: root mean square normalisation over the last dimension or groups of it, with the gates and the residual sum
// that models put beside it.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { activationFunctions, activationNumber } from './activation';
import type { Float } from './float';
import { checkNorm } from './norm-input';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('rmsNorm', {
  x: 'in',
  weight: 'in',
  gate: 'optional',
  residual: 'optional',
  out: 'out',
  sum: 'out',
  groupSize: 'number',
  eps: 'number',
  branchScale: 'number',
  zeroCentred: 'number',
  gateOrder: 'number',
  gateActivation: 'number',
});

const gateOrders = ['after', 'before'] as const;

export interface RmsNormOptions {
  /** Inside the root, beside the mean of squares. */
  eps: number;
  /** The weight is stored as its difference from 1 (Qwen3.5, Gemma). */
  zeroCentred?: boolean;
  /** Neighbours of the last dimension that are normalised together; default all of it. */
  groupSize?: number;
  /** 'after': norm, weight, then times act(gate) (Qwen3.5); 'before': x times act(gate), then norm (Mamba-2). */
  gateOrder?: 'after' | 'before';
  gateActivation?: 'silu' | 'sigmoid';
}

export interface RmsNormInput<D extends Float> extends RmsNormOptions {
  /** float32, bfloat16 or float16 [T, C] or [T, H, D] (free row stride). */
  x: Tensor<D>;
  /** float32 [C], or [D], or [H * D] for [T, H, D]. */
  weight: Tensor<'float32'>;
  /** As x, with a row stride of its own. */
  gate?: Tensor<D>;
}

/**
 * out = x / sqrt(mean(x^2) + eps) * w with w = weight or 1 + weight; the mean is over each group. Statistics and products
 * in float32 or wider, in a fixed order.
 * @returns as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function rmsNorm<D extends Float>(input: RmsNormInput<D>): Tensor<D> {
  return enqueue(op.input(input), undefined).out;
}

/**
 * sum = branchScale x + residual, and out = rmsNorm of the sum as it is stored.
 * @param input as for rmsNorm, with `residual` as x (its own row stride)
 * @returns out and sum, as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function addRmsNorm<D extends Float>(
  input: RmsNormInput<D> & { residual: Tensor<D>; branchScale?: number | undefined },
): { out: Tensor<D>; sum: Tensor<D> } {
  const { out, sum } = enqueue(input, op.tensor('residual', op.input(input).residual), input.branchScale);
  return { out, sum: sum! };
}

function enqueue<D extends Float>(
  {
    x,
    weight,
    gate,
    eps,
    zeroCentred = false,
    groupSize,
    gateOrder = 'after',
    gateActivation = 'silu',
  }: RmsNormInput<D>,
  residual: Tensor<D> | undefined,
  branchScale = 1,
): { out: Tensor<D>; sum: Tensor<D> | undefined } {
  const group = checkNorm(op, x, weight, eps, groupSize);
  const [T, second, third] = x.shape as [number, number, number?];
  const likeX: Record<string, number> = third === undefined ? { T, C: second } : { T, H: second, D: third };
  if (gate !== undefined) op.expect('gate', gate, x.dtype, likeX);
  if (residual !== undefined) op.expect('residual', residual, x.dtype, likeX);
  const order = gateOrders.indexOf(gateOrder);
  op.check(order >= 0, `gateOrder must be after or before, got ${shown(gateOrder)}`);
  const known = gateActivation === 'silu' || gateActivation === 'sigmoid';
  op.check(known, `gateActivation must be silu or sigmoid, got ${shown(gateActivation)}`);
  const out = op.output(x, x.dtype, x.shape);
  const sum = residual && op.output(x, x.dtype, x.shape);
  const numbers = { groupSize: group, eps, branchScale, zeroCentred, gateOrder: order };
  op.run({ x, weight, gate, residual, out, sum, ...numbers, gateActivation: activationNumber(gateActivation) });
  return { out, sum };
}

/** float64 oracle; the sum of addRmsNorm is its x. */
export function rmsNormReference(
  { x, weight, gate }: { x: NdArray; weight: NdArray; gate?: NdArray | undefined },
  options: RmsNormOptions,
): NdArray {
  const { eps, zeroCentred, groupSize = x.shape.at(-1)!, gateOrder = 'after', gateActivation = 'silu' } = options;
  const out = nd(x.shape);
  const act = activationFunctions[gateActivation];
  const gateAt = (i: number) => (gate === undefined ? 1 : act(gate.data[i]!));
  const before = gateOrder === 'before';
  for (let start = 0; start < x.data.length; start += groupSize) {
    const group = x.data.subarray(start, start + groupSize).map((value, i) => value * (before ? gateAt(start + i) : 1));
    const scale = 1 / Math.sqrt(group.reduce((sum, value) => sum + value * value, 0) / groupSize + eps);
    for (let i = 0; i < groupSize; i++) {
      const w = weight.data[(start + i) % weight.data.length]! + (zeroCentred ? 1 : 0);
      out.data[start + i] = group[i]! * scale * w * (before ? 1 : gateAt(start + i));
    }
  }
  return out;
}

/** Reads x and each of gate and residual, writes out and, with a residual, the sum. */
export const rmsNormCost = (
  values: number,
  bytesPerValue: number,
  use: { gate?: boolean; residual?: boolean } = {},
) => ({
  bytes: (2 + (use.gate ? 1 : 0) + (use.residual ? 2 : 0)) * values * bytesPerValue,
  flops: (6 + (use.gate ? 20 : 0) + (use.residual ? 1 : 0)) * values,
});
