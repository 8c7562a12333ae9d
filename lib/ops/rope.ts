// rope: rotary position embedding of the first dimensions of every head.
import { linattnError, shown } from '../errors';
import type { DType } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Sequences, sequenceFields } from './sequences';

const op = defineOp('rope', {
  x: 'in',
  inverseFrequencies: 'in',
  out: 'out',
  ...sequenceFields,
  pairing: 'number',
});

const pairings = ['half', 'interleaved'] as const;

/** 'half': dimension i turns with i + rotary / 2 (rotate_half of Hugging Face); 'interleaved': 2 i with 2 i + 1. */
export type RopePairing = (typeof pairings)[number];

export interface RopeInput<D extends DType> {
  /** float32, bfloat16 or float16 [T, H, D] (free row stride). */
  x: Tensor<D>;
  /** float32 [rotary / 2], radians a token: rotary <= D dimensions turn, the others are copied. */
  inverseFrequencies: Tensor<'float32'>;
  /** Positions are those of the sequences, counted on from their first token. Tokens of none are copied. */
  sequences: Sequences;
  pairing: RopePairing;
}

/**
 * With angle = float32(position * inverseFrequencies[i]), the product that Hugging Face transformers takes
 * (modeling_rope_utils.py), a pair (a, b) becomes (a cos - b sin, b cos + a sin). Sine and cosine of that float32 angle
 * are computed in double precision.
 * @returns as x, contiguous
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function rope<D extends DType>(input: RopeInput<D>): Tensor<D> {
  const { x, inverseFrequencies, sequences, pairing } = op.input(input);
  const [T, H, D] = op.shape('x', x, ['T', 'H', 'D']) as [number, number, number];
  op.dtype('x', x, ['float32', 'bfloat16', 'float16']);
  const [pairs] = op.shape('inverseFrequencies', inverseFrequencies, ['rotary / 2']);
  op.dtype('inverseFrequencies', inverseFrequencies, ['float32']);
  op.check(2 * pairs! <= D, `inverseFrequencies must be for at most D = ${D} dimensions, got ${2 * pairs!}`);
  op.instance('sequences', sequences, Sequences);
  op.check(sequences.tokens === T, `sequences must have T = ${T} tokens, got ${sequences.tokens}`);
  const number = pairings.indexOf(pairing);
  op.check(number >= 0, `pairing must be half or interleaved, got ${shown(pairing)}`);
  const out = op.output(x, x.dtype, [T, H, D]);
  op.run({ x, inverseFrequencies, out, ...sequences.record, pairing: number });
  return out;
}

/**
 * theta^(-2 i / rotary) for i in [0, rotary / 2), rounded to float32 at each step as Hugging Face transformers does
 * (modeling_rope_utils.py, default).
 * @throws LinattnError ERR_ARGUMENT
 */
export function ropeInverseFrequencies(theta: number, rotary: number): Float32Array {
  const even = Number.isSafeInteger(rotary) && rotary >= 0 && rotary % 2 === 0;
  for (const [name, wanted, value, holds] of [
    ['theta', 'a number above 0', theta, Number.isFinite(theta) && theta > 0],
    ['rotary', 'an even number', rotary, even],
  ] as const) {
    if (!holds)
      throw linattnError('ERR_ARGUMENT', `ropeInverseFrequencies: ${name} must be ${wanted}, got ${shown(value)}`);
  }
  return Float32Array.from({ length: rotary / 2 }, (_, i) => 1 / Math.fround(theta ** Math.fround((2 * i) / rotary)));
}

/** float64 oracle; `positions` has one for each token, `inverseFrequencies` float32 values. */
export function ropeReference(
  { x, inverseFrequencies, positions }: { x: NdArray; inverseFrequencies: NdArray; positions: readonly number[] },
  pairing: RopePairing,
): NdArray {
  const [T, H, D] = x.shape as [number, number, number];
  const pairs = inverseFrequencies.data.length;
  const out = nd(x.shape, x.data);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < pairs; i++) {
      const angle = Math.fround(Math.fround(positions[t]!) * inverseFrequencies.data[i]!);
      const cosine = Math.cos(angle);
      const sine = Math.sin(angle);
      for (let h = 0; h < H; h++) {
        const head = (t * H + h) * D;
        const first = head + (pairing === 'half' ? i : 2 * i);
        const second = head + (pairing === 'half' ? i + pairs : 2 * i + 1);
        const [a, b] = [x.data[first]!, x.data[second]!];
        out.data[first] = a * cosine - b * sine;
        out.data[second] = b * cosine + a * sine;
      }
    }
  }
  return out;
}

/** Reads x and writes out; a sine and a cosine for each token and pair. */
export const ropeCost = (
  { tokens, heads, width, rotary }: { tokens: number; heads: number; width: number; rotary: number },
  bytesPerValue: number,
) => ({
  bytes: 2 * tokens * heads * width * bytesPerValue,
  flops: tokens * (3 * heads + 20) * rotary,
});
