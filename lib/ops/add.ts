// add: a + scale * b, element by element, with one scale or one a head (residual branches, skips and bonuses of heads).
import { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('add', { a: 'optional', b: 'in', scales: 'optional', out: 'out', scale: 'number' });

/**
 * out = a + scale * b, computed in float32.
 * @param a float32, bfloat16 or float16 of any shape (free row stride); absent: 0
 * @param b as a
 * @param scale a number, held as float32; or a scale for each head of b [T, H, D]: float32 [H] or [T, H]
 * @returns as b
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT
 */
export function add<D extends Float>(input: {
  a?: Tensor<D> | undefined;
  b: Tensor<D>;
  scale?: number | Tensor<'float32'>;
}): Tensor<D> {
  const { a, b, scale = 1 } = op.input(input);
  op.dtype('b', b, floats);
  if (a !== undefined) {
    op.dtype('a', a, [b.dtype]);
    if (a.shape.length !== b.shape.length || a.shape.some((size, i) => size !== b.shape[i])) {
      throw op.error('ERR_SHAPE', `b must be [${a.shape.join(', ')}] as a, got [${b.shape.join(', ')}]`);
    }
  }
  const scales = typeof scale === 'number' ? undefined : scale;
  if (scales !== undefined) {
    op.instance('scale', scales, Tensor);
    const [T, H] = op.shape('b', b, ['T', 'H', 'D']) as [number, number];
    op.expect('scale', scales, 'float32', scales.shape.length === 1 ? { H } : { T, H });
  }
  const out = op.output(b, b.dtype, b.shape);
  op.run({ a, b, scales, out, scale: typeof scale === 'number' ? scale : 1 });
  return out;
}

/** float64 oracle; `scale` as in the call. */
export function addReference(a: NdArray | undefined, b: NdArray, scale: number | NdArray = 1): NdArray {
  const D = b.shape[2] ?? 1;
  const scaleAt = (i: number): number =>
    typeof scale === 'number' ? scale : scale.data[Math.floor(i / D) % scale.data.length]!;
  return nd(
    b.shape,
    b.data.map((y, i) => (a?.data[i] ?? 0) + scaleAt(i) * y),
  );
}

/** Reads a and b, writes out. */
export const addCost = (values: number, bytesPerValue: number) => ({
  bytes: 3 * values * bytesPerValue,
  flops: 2 * values,
});
