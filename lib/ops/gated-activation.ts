// gatedActivation: act(gate) * x, the middle of a gated MLP (SwiGLU with silu, ReGLU, GEGLU) and of output gates.
import type { Tensor } from '../tensor/tensor';
import { type Activation, activationFunctions, activationNumber, activations } from './activation';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('gatedActivation', { x: 'in', gate: 'optional', out: 'out', activation: 'number' });

/**
 * out = activation(gate) * x, computed in float32.
 * @param x float32, bfloat16 or float16 [T, I] (free row stride); without `gate` [T, 2I], a row holding gate, then x
 * @param gate as x, with a row stride of its own
 * @returns [T, I] as x
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function gatedActivation<D extends Float>({
  x,
  gate,
  activation,
}: {
  x: Tensor<D>;
  gate?: Tensor<D>;
  activation: Activation;
}): Tensor<D> {
  op.dtype('x', x, floats);
  const number = activationNumber(activation);
  op.check(number >= 0, `activation must be one of ${activations.join(', ')}, got ${activation}`);
  const [T, width] = op.shape('x', x, gate === undefined ? ['T', '2I'] : ['T', 'I']) as [number, number];
  if (gate !== undefined) op.expect('gate', gate, x.dtype, { T, I: width });
  else if (width % 2 !== 0) throw op.error('ERR_SHAPE', `x must be [T, 2I], got [${x.shape.join(', ')}]`);
  const out = op.output(x, x.dtype, [T, gate === undefined ? width / 2 : width]);
  op.run({ x, gate, out, activation: number });
  return out;
}

/** float64 oracle. */
export function gatedActivationReference(x: NdArray, gate: NdArray | undefined, name: Activation): NdArray {
  const [T, width] = x.shape as [number, number];
  const I = gate === undefined ? width / 2 : width;
  const out = nd([T, I]);
  const act = activationFunctions[name];
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < I; i++) {
      const g = gate === undefined ? x.data[t * width + i]! : gate.data[t * I + i]!;
      out.data[t * I + i] = act(g) * x.data[t * width + (gate === undefined ? I : 0) + i]!;
    }
  }
  return out;
}

/** Reads gate and x, writes out; about 20 operations a value. */
export const gatedActivationCost = (values: number, bytesPerValue: number) => ({
  bytes: 3 * values * bytesPerValue,
  flops: 20 * values,
});
