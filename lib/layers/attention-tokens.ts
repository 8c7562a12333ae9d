// What the layers that read a caller's sequence piece by piece ask of a piece, before anything of it is read.
import { type ErrorCode, linattnError, shown } from '../errors';
import { checkInstance, checkTensor } from './arguments';
import type { Hidden } from './layer';

export interface AttentionTokens {
  readonly q: Hidden;
  readonly k: Hidden;
  readonly v: Hidden;
}

const fail = (layer: string, code: ErrorCode, message: string): never => {
  throw linattnError(code, `${layer}: ${message}`);
};

/** ERR_ARGUMENT unless the call was given the tensors q, k and v, and a sequence of the layer; ERR_DISPOSED. */
export function checkCall(
  layer: string,
  input: AttentionTokens,
  sequence: object,
  type: { readonly name: string; readonly prototype: object },
): void {
  checkTensor(layer, 'q', input?.q);
  checkTensor(layer, 'k', input?.k);
  checkTensor(layer, 'v', input?.v);
  checkInstance(layer, 'the sequence', sequence, type);
}

/** ERR_SHAPE unless q is [T, Hq, D] and k and v are [T, heads, D], Hq a multiple of heads. */
export function checkTokens(layer: string, { q, k, v }: AttentionTokens, heads: number, width: number): void {
  const [T = 0, Hq = 0] = q.shape;
  const all = [
    ['q', q, Hq],
    ['k', k, heads],
    ['v', v, heads],
  ] as const;
  for (const [name, { shape }, H] of all) {
    if (shape.join() === [T, H, width].join()) continue;
    fail(layer, 'ERR_SHAPE', `${name} must be [T, H, D] = [${T}, ${H}, ${width}], got [${shape.join(', ')}]`);
  }
  if (Hq === 0 || Hq % heads !== 0) fail(layer, 'ERR_SHAPE', `q must have a multiple of ${heads} heads, got ${Hq}`);
}

/** ERR_ARGUMENT unless all of these are whole numbers from 1. */
export function checkSizes(layer: string, sizes: Readonly<Record<string, number>>): void {
  for (const [name, size] of Object.entries(sizes)) {
    if (!(Number.isSafeInteger(size) && size > 0))
      fail(layer, 'ERR_ARGUMENT', `${name} must be 1 or more, got ${shown(size)}`);
  }
}
