// deltaGates: log decay and write strength from their projections, as a gated delta net or a Mamba-2 layer has them.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { activationFunctions } from './activation';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('deltaGates', {
  a: 'in',
  b: 'optional',
  aLog: 'in',
  dtBias: 'in',
  g: 'out',
  beta: 'out',
  betaScale: 'number',
  stepMin: 'number',
  stepMax: 'number',
});

/**
 * g = -exp(aLog) softplus(a + dtBias), the natural log of the decay; beta = betaScale sigmoid(b). Source: Gated Delta
 * Networks (Yang et al., 2024), as in Hugging Face's Qwen3.5; betaScale 2 allows negative eigenvalues.
 * @param a float32, bfloat16 or float16 [T, H] (free row stride)
 * @param b as a, with a row stride of its own
 * @param aLog float32 [H]
 * @param dtBias float32 [H]
 * @param betaScale 1 or 2
 * @returns float32 [T, H] each
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function deltaGates<D extends Float>(input: {
  a: Tensor<D>;
  b: Tensor<D>;
  aLog: Tensor<'float32'>;
  dtBias: Tensor<'float32'>;
  betaScale?: 1 | 2;
}): { g: Tensor<'float32'>; beta: Tensor<'float32'> } {
  const { a, b, aLog, dtBias, betaScale = 1 } = op.input(input);
  op.dtype('a', a, floats);
  const [T, H] = op.shape('a', a, ['T', 'H']) as [number, number];
  op.expect('b', b, a.dtype, { T, H });
  op.expect('aLog', aLog, 'float32', { H });
  op.expect('dtBias', dtBias, 'float32', { H });
  op.check(betaScale === 1 || betaScale === 2, `betaScale must be 1 or 2, got ${shown(betaScale)}`);
  const g = op.output(a, 'float32', [T, H]);
  const beta = op.output(a, 'float32', [T, H]);
  op.run({ a, b, aLog, dtBias, g, beta, betaScale, stepMin: 0, stepMax: 0 });
  return { g, beta };
}

/**
 * step = softplus(a + dtBias) within [min, max], g = -exp(aLog) step: the discretisation of Mamba-2 (arXiv 2405.21060), as
 * in Hugging Face's models/mamba2.
 * @param a float32, bfloat16 or float16 [T, H] (free row stride)
 * @param aLog float32 [H]
 * @param dtBias float32 [H]
 * @param min of the step, by default 0
 * @param max of the step, by default Infinity
 * @returns float32 [T, H] each
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function stepGates<D extends Float>(input: {
  a: Tensor<D>;
  aLog: Tensor<'float32'>;
  dtBias: Tensor<'float32'>;
  min?: number;
  max?: number;
}): { g: Tensor<'float32'>; step: Tensor<'float32'> } {
  const { a, aLog, dtBias, min = 0, max = Number.POSITIVE_INFINITY } = op.input(input);
  op.dtype('a', a, floats);
  const [T, H] = op.shape('a', a, ['T', 'H']) as [number, number];
  op.expect('aLog', aLog, 'float32', { H });
  op.expect('dtBias', dtBias, 'float32', { H });
  const ordered = typeof min === 'number' && typeof max === 'number' && min >= 0 && max >= min;
  op.check(ordered, `min and max must be 0 <= min <= max, got ${shown(min)} and ${shown(max)}`);
  const g = op.output(a, 'float32', [T, H]);
  const step = op.output(a, 'float32', [T, H]);
  op.run({ a, b: undefined, aLog, dtBias, g, beta: step, betaScale: 1, stepMin: min, stepMax: max });
  return { g, step };
}

/** float64 oracle. */
export function deltaGatesReference(
  { a, b, aLog, dtBias }: { a: NdArray; b: NdArray; aLog: NdArray; dtBias: NdArray },
  betaScale = 1,
): { g: NdArray; beta: NdArray } {
  const H = aLog.data.length;
  const gate = (x: number, i: number) =>
    -Math.exp(aLog.data[i % H]!) * activationFunctions.softplus(x + dtBias.data[i % H]!);
  return {
    g: nd(a.shape, a.data.map(gate)),
    beta: nd(
      b.shape,
      b.data.map((x) => betaScale * activationFunctions.sigmoid(x)),
    ),
  };
}

/** float64 oracle of stepGates. */
export function stepGatesReference(
  { a, aLog, dtBias }: { a: NdArray; aLog: NdArray; dtBias: NdArray },
  min = 0,
  max = Number.POSITIVE_INFINITY,
): { g: NdArray; step: NdArray } {
  const H = aLog.data.length;
  const steps = a.data.map((x, i) =>
    Math.min(max, Math.max(min, activationFunctions.softplus(x + dtBias.data[i % H]!))),
  );
  return {
    g: nd(
      a.shape,
      steps.map((step, i) => -Math.exp(aLog.data[i % H]!) * step),
    ),
    step: nd(a.shape, steps),
  };
}

/** Reads a and b, writes g and beta; about 60 operations a value. */
export const deltaGatesCost = (tokens: number, heads: number, bytesPerValue: number) => ({
  bytes: tokens * heads * (2 * bytesPerValue + 8),
  flops: 60 * tokens * heads,
});
