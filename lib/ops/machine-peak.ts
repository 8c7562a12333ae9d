// machinePeak: what this machine can do at most, measured on the device's own threads: the yardstick of `linattn bench`.
import { shown } from '../errors';
import { type DeviceName, defaultDevice, deviceIndex } from '../tensor/device';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';

const op = defineOp('machinePeak', { values: 'optional', out: 'out', kind: 'number' });

const kinds = ['multiplyAdd', 'dotBFloat16', 'read'] as const;
export type PeakKind = (typeof kinds)[number];

/**
 * One measurement of some milliseconds; take several, in turns with what is compared.
 * @param kind multiplyAdd: float32 multiply-adds in registers, GFLOP/s; dotBFloat16: dot products of bfloat16 pairs,
 *   GFLOP/s, 0 where the CPU level has none; read: one pass over `values` by all threads, GB/s
 * @param values float32, for read; large enough not to lie in caches
 * @returns float32 [1]
 * @throws LinattnError ERR_ARGUMENT, ERR_DTYPE
 */
export function machinePeak(
  kind: PeakKind,
  options: { values?: Tensor<'float32'>; device?: DeviceName } = {},
): Tensor<'float32'> {
  const { values, device = defaultDevice() } = op.input(options, 'options');
  op.check(kinds.includes(kind), `kind must be ${kinds.join(', ')}, got ${shown(kind)}`);
  op.check((kind === 'read') === (values !== undefined), 'values are for read, and only for it');
  deviceIndex(device);
  if (values !== undefined) op.dtype('values', values, ['float32']);
  const out = op.output(values ?? device, 'float32', [1]);
  op.run({ values, out, kind: kinds.indexOf(kind) });
  return out;
}
