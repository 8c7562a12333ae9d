// Texts that are read through a prefix cache, with the device's own count of what was read.

import type { LoadOptions } from '../../lib/generation/load';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { Session } from '../../lib/generation/session';
import { insideOf } from './network';

export const join = (...parts: Int32Array[]) => Int32Array.from(parts.flatMap((part) => [...part]));

/** Tokens that the device read for a session, by its own count. */
export async function processed(session: Session): Promise<number> {
  const { sequence, core } = session as unknown as { sequence: never; core: ReturnType<typeof insideOf>['core'] };
  return (await core.scheduler.store.readRow(sequence)).processed;
}

/** Reads `tokens` on a session of its own: how many were cached, and the logits. The device's count must agree. */
export async function reading(model: Model, tokens: Int32Array): Promise<{ cached: number; logits: Float32Array }> {
  const session = model.createSession();
  const { promptTokens, cachedTokens: cached } = await session.prefill({ tokens });
  expect(promptTokens).toBe(tokens.length);
  expect(await processed(session)).toBe(tokens.length - cached);
  const logits = await session.logits();
  await session.dispose();
  return { cached, logits };
}

/** Bytes of so many states in the cache, and what is on its way out. */
export async function room(options: LoadOptions, states: number): Promise<number> {
  const [, bytes] = /at least (\d+)/.exec(
    await load({ ...options, prefixCache: { deviceBytes: 0 } }).then(String, (error: Error) => error.message),
  )!;
  return (Number(bytes) / 4) * (states + 2);
}

/** Resolves when what left the device is in the memory of the process, and what goes to the store is there. */
export async function whenKept(model: Model): Promise<void> {
  const cache = insideOf(model).core.prefixCache as unknown as { demoting?: Promise<void>; saves: Promise<void> };
  await cache.demoting;
  await cache.saves;
}
