// Scopes: what is made inside and not returned is freed at the end.
import { LinattnError } from '../errors';

/** What a scope owns; tensors are the only kind. */
interface Owned {
  dispose(): void;
  /** The number of the scope that frees it; 0 = none. */
  scope: number;
}

interface Scope {
  readonly number: number;
  /** All that were made in it, also those that have left it. */
  readonly made: Owned[];
}

const scopes: Scope[] = [];
let lastNumber = 0;

function begin(): Scope {
  const own = { number: ++lastNumber, made: [] };
  scopes.push(own);
  return own;
}

/** What tensor.ts does for scopes. */
export const owner = {
  /** A tensor that leaves the last scope is handed to the garbage collector. */
  keep: (_owned: Owned): void => undefined,
  /** What a scope owned is freed at once. */
  disposeAll: (_owned: Iterable<Owned>): void => undefined,
};

/** The current scope takes a new tensor; false when there is none. */
export function join(owned: Owned): boolean {
  const current = scopes[scopes.length - 1];
  if (current === undefined) return false;
  owned.scope = current.number;
  current.made.push(owned);
  return true;
}

/** A tensor was disposed by hand, or belongs to somebody else. */
export function leave(owned: Owned): void {
  owned.scope = 0;
}

/** Makes a tensor one that no scope frees; its owner disposes it. */
export function own<T extends Owned & { keep(): void }>(tensor: T): T {
  leave(tensor);
  tensor.keep();
  return tensor;
}

/** Those that a scope still owns. */
const ownedBy = ({ number, made }: Scope): Owned[] => made.filter((owned) => owned.scope === number);

/** To the scope around, or to the garbage collector. */
function passOn(kept: readonly Owned[]): void {
  for (const owned of kept) if (!join(owned)) owner.keep(owned);
}

function* ownedIn(value: unknown): Generator<Owned> {
  if (typeof value !== 'object' || value === null) return;
  if (typeof (value as Partial<Owned>).dispose === 'function') yield value as Owned;
  else if (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) {
      if (typeof item === 'object' && item !== null && typeof (item as Partial<Owned>).dispose === 'function') {
        yield item as Owned;
      }
    }
  }
}

/**
 * Runs `fn` and frees the tensors made in it, but those it returns: alone, or in an array or plain object.
 * `fn` is synchronous: a promise is an error (ERR_ARGUMENT), since what it makes later would escape.
 */
export function scope<T>(fn: () => T extends PromiseLike<unknown> ? never : T): T {
  if (typeof fn !== 'function')
    throw new LinattnError('ERR_ARGUMENT', `scope: fn must be a function, got ${typeof fn}`);
  const own = begin();
  const kept = new Set<Owned>();
  try {
    const result = fn() as T;
    if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
      throw new LinattnError('ERR_ARGUMENT', 'scope: fn must be synchronous, it returned a promise');
    }
    for (const owned of ownedIn(result)) if (owned.scope === own.number) kept.add(owned);
    return result;
  } finally {
    scopes.pop();
    for (const owned of kept) leave(owned);
    owner.disposeAll(ownedBy(own));
    passOn([...kept]);
  }
}

/** Runs `fn`, which keeps the tensors made in it where it likes; when it throws they are freed. `fn` is synchronous. */
export function allOrNone<T>(fn: () => T): T {
  const own = begin();
  let failed = true;
  try {
    const result = fn();
    failed = false;
    return result;
  } finally {
    scopes.pop();
    if (failed) owner.disposeAll(ownedBy(own));
    else passOn(ownedBy(own));
  }
}
