// Scopes: what is made inside and not returned is freed at the end.
import { LinattnError } from '../errors';

/** What a scope owns; tensors are the only kind. */
interface Owned {
  dispose(): void;
}

const scopes: Set<Owned>[] = [];

/** What tensor.ts does for scopes. */
export const owner = {
  /** A tensor that leaves the last scope is handed to the garbage collector. */
  keep: (_owned: Owned): void => undefined,
  /** What a scope owned is freed at once. */
  disposeAll: (_owned: Iterable<Owned>): void => undefined,
};

/** The current scope takes a new tensor; false when there is none. */
export function join(owned: Owned): boolean {
  const current = scopes.at(-1);
  current?.add(owned);
  return current !== undefined;
}

/** A tensor was disposed by hand. */
export function leave(owned: Owned): void {
  for (let i = scopes.length - 1; i >= 0; i--) if (scopes[i]!.delete(owned)) return;
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
  const own = new Set<Owned>();
  scopes.push(own);
  let kept: Owned[] = [];
  try {
    const result = fn() as T;
    if (typeof (result as { then?: unknown } | null | undefined)?.then === 'function') {
      throw new LinattnError('ERR_ARGUMENT', 'scope: fn must be synchronous, it returned a promise');
    }
    kept = [...ownedIn(result)].filter((owned) => own.delete(owned));
    return result;
  } finally {
    scopes.pop();
    owner.disposeAll(own);
    for (const owned of kept) if (!join(owned)) owner.keep(owned);
  }
}

/** Runs `fn`, which keeps the tensors made in it where it likes; when it throws they are freed. `fn` is synchronous. */
export function allOrNone<T>(fn: () => T): T {
  const own = new Set<Owned>();
  scopes.push(own);
  let failed = true;
  try {
    const result = fn();
    failed = false;
    return result;
  } finally {
    scopes.pop();
    if (failed) owner.disposeAll(own);
    else for (const owned of own) if (!join(owned)) owner.keep(owned);
  }
}
