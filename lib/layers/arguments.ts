// What layers ask of the arguments of a caller before they hand them to ops, whose errors would have other names for them.
import { linattnError, shown } from '../errors';
import { Tensor } from '../tensor/tensor';

/** ERR_ARGUMENT unless it is a Tensor, ERR_DISPOSED when it has gone. */
export function checkTensor(layer: string, name: string, value: unknown): void {
  checkInstance(layer, name, value, Tensor);
  if ((value as Tensor).id !== 0) return;
  throw linattnError('ERR_DISPOSED', `${layer}: ${name} is used after its dispose()`);
}

/** The same where it is given. */
export function checkGiven(layer: string, name: string, value: unknown): void {
  if (value !== undefined) checkTensor(layer, name, value);
}

/** ERR_ARGUMENT unless it is of this class. */
export function checkInstance(
  layer: string,
  name: string,
  value: unknown,
  type: { readonly name: string; readonly prototype: object },
): void {
  if (value instanceof (type as unknown as new () => object)) return;
  throw linattnError('ERR_ARGUMENT', `${layer}: ${name} must be a ${type.name}, got ${shown(value)}`);
}

/**
 * ERR_ARGUMENT unless lengths is a list of numbers, and so is each of the others that is given; ERR_SHAPE unless those have
 * one for each length, and the lengths the T tokens of `x` in all.
 */
export function checkLists(
  layer: string,
  x: Tensor,
  lengths: unknown,
  others: Readonly<Record<string, unknown>> = {},
): void {
  const list = (name: string, value: unknown): readonly number[] => {
    if (Array.isArray(value) && value.every((item) => typeof item === 'number')) return value;
    throw linattnError('ERR_ARGUMENT', `${layer}: ${name} must be a list of numbers, got ${shown(value)}`);
  };
  const sum = list('lengths', lengths).reduce((all, length) => all + length, 0);
  const { length: count } = lengths as readonly number[];
  for (const [name, value] of Object.entries(others)) {
    if (value === undefined || list(name, value).length === count) continue;
    const got = (value as readonly number[]).length;
    throw linattnError('ERR_SHAPE', `${layer}: ${name} must have a number for each of ${count} lengths, got ${got}`);
  }
  if (sum === x.shape[0]) return;
  throw linattnError('ERR_SHAPE', `${layer}: lengths must have T = ${x.shape[0]} tokens in all, got ${shown(sum)}`);
}

/** ERR_ARGUMENT unless it is a finite number, or absent. */
export function checkScale(layer: string, scale: unknown): void {
  if (scale === undefined || Number.isFinite(scale)) return;
  throw linattnError('ERR_ARGUMENT', `${layer}: scale must be a number, got ${shown(scale)}`);
}
