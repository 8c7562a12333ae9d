// activation: an activation function of every element, times a number.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

/** The order is that of ActivationKind in native/ops/activation.h. */
export const activations = [
  'silu',
  'sigmoid',
  'tanh',
  'relu',
  'relu2',
  'softplus',
  'gelu',
  'geluTanh',
  'logSigmoid',
  'identity',
] as const;

/**
 * silu x / (1 + e^-x); relu2 max(x, 0)^2; gelu x Phi(x) with the normal distribution; geluTanh its tanh approximation;
 * logSigmoid -log(1 + e^-x).
 */
export type Activation = (typeof activations)[number];

const op = defineOp('activation', { x: 'in', out: 'out', activation: 'number', scale: 'number' });

/** The number of an activation in a record; -1 for an unknown name. */
export const activationNumber = (name: Activation): number => activations.indexOf(name);

/**
 * out = scale activation(x), computed in float32.
 * @param x float32, bfloat16 or float16 of any shape
 * @param scale held as float32; default 1
 * @returns as x
 * @throws LinattnError ERR_DTYPE, ERR_ARGUMENT
 */
export function activation<D extends Float>(input: {
  x: Tensor<D>;
  activation: Activation;
  scale?: number;
}): Tensor<D> {
  const { x, activation: name, scale = 1 } = op.input(input);
  op.dtype('x', x, floats);
  const number = activationNumber(name);
  op.check(number >= 0, `activation must be one of ${activations.join(', ')}, got ${shown(name)}`);
  const out = op.output(x, x.dtype, x.shape);
  op.run({ x, out, activation: number, scale });
  return out;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** erfc(z) for z >= 0 to about 1e-15: the power series of erf below 2.5, the continued fraction of Laplace above. */
function erfc(z: number): number {
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; n < 80; n++) {
      term *= (-z * z) / n;
      sum += term / (2 * n + 1);
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 120; n > 0; n--) fraction = n / 2 / (z + fraction);
  return Math.exp(-z * z) / Math.sqrt(Math.PI) / (z + fraction);
}

/** float64 oracles, by name. */
export const activationFunctions: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x * sigmoid(x),
  sigmoid,
  tanh: Math.tanh,
  relu: (x) => (x < 0 ? 0 : x),
  relu2: (x) => (x < 0 ? 0 : x * x),
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  gelu: (x) => x * (x < 0 ? erfc(-x / Math.SQRT2) / 2 : 1 - erfc(x / Math.SQRT2) / 2),
  geluTanh: (x) => x * sigmoid(2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)),
  logSigmoid: (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x))),
  identity: (x) => x,
};

/** float64 oracle. */
export function activationReference(x: NdArray, name: Activation, scale = 1): NdArray {
  return nd(
    x.shape,
    x.data.map((value) => scale * activationFunctions[name](value)),
  );
}

/** Reads x, writes out; about 20 operations a value. */
export const activationCost = (values: number, bytesPerValue: number) => ({
  bytes: 2 * values * bytesPerValue,
  flops: 20 * values,
});
