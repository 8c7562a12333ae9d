// gatedActivation: act(gate) * x, the middle of a gated MLP (SwiGLU with silu, ReGLU, GEGLU), of output gates, and of
// mixtures of two values.
import { shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { type Activation, activationFunctions, activationNumber, activations } from './activation';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('gatedActivation', {
  x: 'in',
  gate: 'optional',
  base: 'optional',
  out: 'out',
  activation: 'number',
});

/**
 * out = base + activation(gate) * (x - base), computed in float32.
 * @param x float32, bfloat16 or float16 [T, I] (free row stride); without `gate` [T, 2I], a row holding gate, then x
 * @param gate as x, with a row stride of its own
 * @param base as x beside a gate, with a row stride of its own; absent: 0
 * @returns [T, I] as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function gatedActivation<D extends Float>(input: {
  x: Tensor<D>;
  gate?: Tensor<D>;
  base?: Tensor<D> | undefined;
  activation: Activation;
}): Tensor<D> {
  const { x, gate, base, activation } = op.input(input);
  op.dtype('x', x, floats);
  const number = activationNumber(activation);
  op.check(number >= 0, `activation must be one of ${activations.join(', ')}, got ${shown(activation)}`);
  const [T, width] = op.shape('x', x, gate === undefined ? ['T', '2I'] : ['T', 'I']) as [number, number];
  if (gate !== undefined) op.expect('gate', gate, x.dtype, { T, I: width });
  else if (width % 2 !== 0) throw op.error('ERR_SHAPE', `x must be [T, 2I], got [${x.shape.join(', ')}]`);
  const I = gate === undefined ? width / 2 : width;
  if (base !== undefined) op.expect('base', base, x.dtype, { T, I });
  const out = op.output(x, x.dtype, [T, I]);
  op.run({ x, gate, base, out, activation: number });
  return out;
}

/** float64 oracle. */
export function gatedActivationReference(
  x: NdArray,
  gate: NdArray | undefined,
  name: Activation,
  base?: NdArray,
): NdArray {
  const [T, width] = x.shape as [number, number];
  const I = gate === undefined ? width / 2 : width;
  const out = nd([T, I]);
  const act = activationFunctions[name];
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < I; i++) {
      const g = gate === undefined ? x.data[t * width + i]! : gate.data[t * I + i]!;
      const from = base?.data[t * I + i] ?? 0;
      out.data[t * I + i] = from + act(g) * (x.data[t * width + (gate === undefined ? I : 0) + i]! - from);
    }
  }
  return out;
}

/** Reads gate and x, writes out; about 20 operations a value. */
export const gatedActivationCost = (values: number, bytesPerValue: number) => ({
  bytes: 3 * values * bytesPerValue,
  flops: 20 * values,
});
