// route: which experts of a mixture a token goes to, and how much each of them counts.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { activationFunctions } from './activation';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('route', {
  logits: 'in',
  bias: 'optional',
  ids: 'out',
  weights: 'out',
  score: 'number',
  renormalise: 'number',
  scale: 'number',
});

const scores = ['softmax', 'sigmoid'] as const;

export interface RouteOptions {
  /** Experts a token goes to, k. */
  count: number;
  /** Of the logits: softmax over all experts (Qwen, Granite), or the sigmoid of each (DeepSeek, Kimi). */
  score: 'softmax' | 'sigmoid';
  /** The weights of the chosen experts add up to 1, before the scale. */
  renormalise: boolean;
  /** Default 1. */
  scale?: number;
}

/**
 * The k experts of the greatest score + bias, greatest first (of equal ones the first; NaN comes last), and their scores
 * without the bias, renormalised, times the scale. The choice and the weights of a token depend on its logits alone.
 * @param logits float32, bfloat16 or float16 [T, E]
 * @param bias float32 [E], added for the choice only (DeepSeek-V3's e_score_correction_bias)
 * @returns ids int32 [T, k], weights float32 [T, k]
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function route<D extends Float>(
  input: RouteOptions & { logits: Tensor<D>; bias?: Tensor<'float32'> | undefined },
): {
  ids: Tensor<'int32'>;
  weights: Tensor<'float32'>;
} {
  const { logits, bias, count, score, renormalise, scale = 1 } = op.input(input);
  op.dtype('logits', logits, floats);
  const [T, E] = op.shape('logits', logits, ['T', 'E']) as [number, number];
  if (bias !== undefined) op.expect('bias', bias, 'float32', { E });
  const whole = Number.isSafeInteger(count) && count >= 1 && count <= E;
  op.check(whole, `count must be a whole number from 1 to E = ${E}, got ${shown(count)}`);
  const number = scores.indexOf(score);
  op.check(number >= 0, `score must be softmax or sigmoid, got ${shown(score)}`);
  op.check(Number.isFinite(scale), `scale must be a number, got ${shown(scale)}`);
  const ids = op.output(logits, 'int32', [T, count]);
  const weights = op.output(logits, 'float32', [T, count]);
  op.run({ logits, bias, ids, weights, score: number, renormalise, scale });
  return { ids, weights };
}

/** float64 oracle. */
export function routeReference(
  { logits, bias }: { logits: NdArray; bias?: NdArray | undefined },
  { count, score, renormalise, scale = 1 }: RouteOptions,
): { ids: NdArray; weights: NdArray } {
  const [T, E] = logits.shape as [number, number];
  const [ids, weights] = [nd([T, count]), nd([T, count])];
  for (let t = 0; t < T; t++) {
    const row = [...logits.data.subarray(t * E, (t + 1) * E)];
    const top = Math.max(...row);
    const total = row.reduce((sum, x) => sum + Math.exp(x - top), 0);
    const own = row.map((x) => (score === 'softmax' ? Math.exp(x - top) / total : activationFunctions.sigmoid(x)));
    const order = own.map((_, e) => e).sort((a, b) => rank(b) - rank(a) || a - b);
    const chosen = order.slice(0, count);
    const sum = chosen.reduce((all, e) => all + own[e]!, 0);
    chosen.forEach((e, j) => {
      ids.data[t * count + j] = e;
      weights.data[t * count + j] = ((renormalise ? own[e]! / sum : own[e]!) * scale) as number;
    });
    function rank(e: number): number {
      return own[e]! + (bias?.data[e] ?? 0);
    }
  }
  return { ids, weights };
}

/** Reads the logits, writes ids and weights. */
export const routeCost = (tokens: number, experts: number, count: number, bytesPerValue: number) => ({
  bytes: tokens * (experts * bytesPerValue + 8 * count),
  flops: tokens * experts * (20 + count),
});
