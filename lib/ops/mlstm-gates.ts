// mlstmGates: the exponential gates of an mLSTM, kept in range by a running maximum.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { activationFunctions } from './activation';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Sequences, sequenceFields } from './sequences';

const op = defineOp('mlstmGates', {
  x: 'in',
  bias: 'in',
  maximum: 'inout',
  g: 'out',
  keyScale: 'out',
  floor: 'out',
  ...sequenceFields,
  cap: 'number',
  scale: 'number',
  exponential: 'number',
});

export interface MlstmGatesOptions {
  /** Both gates' inputs x become cap tanh(x / cap), as in xLSTM-7B (arXiv 2503.13427, 15 there); absent: they stay. */
  readonly cap?: number | undefined;
  /** In keyScale; default 1. K ** -0.5 here scales both what is read and its normaliser. */
  readonly scale?: number | undefined;
  /** f is sigmoid(x) (default) or e^x. */
  readonly forget?: 'sigmoid' | 'exponential' | undefined;
}

export interface MlstmGatesInput<D extends Float> extends MlstmGatesOptions {
  /** float32, bfloat16 or float16 [T, 2 H] (free row stride), rows input | forget: the gates before their activations. */
  x: Tensor<D>;
  /** float32 [2 H], added to x. */
  bias: Tensor<'float32'>;
  /** float32 [slots, H], m of each slot, in place; the slot stride is free. Absent: from nothing, the end is dropped. */
  maximum?: Tensor<'float32'> | undefined;
  sequences: Sequences;
}

/**
 * With the input gate i = e^a and the forget gate f, an mLSTM is C = f C + i k v', n = f n + i k and
 * h = C'q / max(|n'q|, 1). Its stabilised form (arXiv 2405.04517, appendix) holds C and n times e^-m, which is
 * linearAttention of the rule 'additive' with these numbers, and `divide` behind it:
 *
 *     m_t = max(log f + m_(t-1), a)
 *     g = log f + m_(t-1) - m_t,   keyScale = scale e^(a - m_t),   floor = e^-m_t
 *
 * so no gate overflows, capped or not. m starts from 0, as in transformers models/xlstm, and with exponential forget gates
 * from -Infinity, so that the first one, which meets an empty state, says nothing. Any split of a sequence gives the same
 * bits. An m that falls below -88 makes floor infinite, and h 0: by then it is below float32.
 * @returns float32 [T, H] each: g for `decay` per token, keyScale for the keys, floor for divide
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; at execution ERR_ARGUMENT for slots that are out of range
 */
export function mlstmGates<D extends Float>(
  input: MlstmGatesInput<D>,
): { g: Tensor<'float32'>; keyScale: Tensor<'float32'>; floor: Tensor<'float32'> } {
  const { x, bias, maximum, sequences, cap, scale = 1, forget = 'sigmoid' } = op.input(input);
  op.dtype('x', x, floats);
  const [T, both] = op.shape('x', x, ['T', '2H']) as [number, number];
  if (both % 2 !== 0) throw op.error('ERR_SHAPE', `x must be [T, 2H], got [${x.shape.join(', ')}]`);
  const H = both / 2;
  op.expect('x', x, x.dtype, { T: op.instance('sequences', sequences, Sequences).tokens, '2H': both });
  op.expect('bias', bias, 'float32', { '2H': both });
  if (maximum) {
    op.expect('maximum', maximum, 'float32', { slots: op.shape('maximum', maximum, ['slots', 'H'])[0]!, H });
  }
  op.check(cap === undefined || (cap > 0 && Number.isFinite(cap)), `cap must be more than 0, got ${shown(cap)}`);
  op.check(Number.isFinite(scale), `scale must be a number, got ${shown(scale)}`);
  const known = forget === 'sigmoid' || forget === 'exponential';
  op.check(known, `forget must be sigmoid or exponential, got ${shown(forget)}`);
  const [g, keyScale, floor] = [0, 1, 2].map(() => op.output(x, 'float32', [T, H]));
  const numbers = { cap: cap ?? 0, scale, exponential: forget === 'exponential' };
  op.run({ x, bias, maximum, g, keyScale, floor, ...sequences.record, ...numbers });
  return { g: g!, keyScale: keyScale!, floor: floor! };
}

/**
 * float64 oracle, of one sequence after another of these lengths, each from m = 0, or -Infinity.
 * @param stored rounds m and every result: Math.fround gives the error of the recurrence itself
 */
export function mlstmGatesReference(
  x: NdArray,
  bias: NdArray,
  lengths: readonly number[],
  { cap, scale = 1, forget = 'sigmoid' }: MlstmGatesOptions = {},
  stored: (value: number) => number = (value) => value,
): { g: NdArray; keyScale: NdArray; floor: NdArray; maximum: NdArray } {
  const H = bias.data.length / 2;
  const T = x.shape[0]!;
  const [g, keyScale, floor] = [nd([T, H]), nd([T, H]), nd([T, H])];
  const maximum = nd([lengths.length, H]);
  const capped = (value: number): number => stored(cap === undefined ? value : cap * Math.tanh(value / cap));
  const exponential = forget === 'exponential';
  for (let h = 0; h < H; h++) {
    let t = 0;
    for (const [n, length] of lengths.entries()) {
      let m = exponential ? Number.NEGATIVE_INFINITY : 0;
      for (const end = t + length; t < end; t++) {
        const a = capped(x.data[t * 2 * H + h]! + bias.data[h]!);
        const forgetInput = capped(x.data[t * 2 * H + H + h]! + bias.data[H + h]!);
        const logForget = stored(exponential ? forgetInput : activationFunctions.logSigmoid(forgetInput));
        const kept = stored(logForget + m);
        const next = stored(Math.max(kept, a));
        const at = t * H + h;
        g.data[at] = stored(kept - next);
        keyScale.data[at] = stored(scale * Math.exp(a - next));
        floor.data[at] = stored(Math.exp(-next));
        m = next;
      }
      maximum.data[n * H + h] = m;
    }
  }
  return { g, keyScale, floor, maximum };
}

/** Reads x, writes three; about 80 operations a value. */
export const mlstmGatesCost = (tokens: number, heads: number, bytesPerValue: number) => ({
  bytes: tokens * heads * (2 * bytesPerValue + 12),
  flops: 80 * tokens * heads,
});
