// Reads a saved state back. Nothing of it is used before all of its bytes have proved right.
import { createReadStream } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { linattnError } from '../errors';
import { readContent, sectionsOf } from '../state/checkpoint-content';
import { bytesOf, FramedReader } from '../state/snapshot-format';
import { type StateDType, stateDTypes } from '../state/state-dtype';
import type { ModelCore } from './model-core';
import type { SessionStart } from './session';
import { ModelSnapshot, type SnapshotHeader } from './snapshot';
import { type TokenHash, TokenList } from './token-list';

export type SnapshotSource = string | Uint8Array | AsyncIterable<Uint8Array>;

/** @throws LinattnError ERR_SNAPSHOT_*, ERR_FILE, ERR_ARGUMENT, ERR_OUT_OF_MEMORY; signal.reason */
export async function loadSnapshot(
  core: ModelCore,
  source: SnapshotSource,
  signal: AbortSignal | undefined,
): Promise<ModelSnapshot> {
  const { checkpoint, history } = await readSnapshot(core, source, signal);
  try {
    return new ModelSnapshot(core, checkpoint, history);
  } finally {
    core.scheduler.store.release(checkpoint);
  }
}

/** The same as a checkpoint, which the caller releases, and its tokens. */
export async function readSnapshot(
  core: ModelCore,
  source: SnapshotSource,
  signal: AbortSignal | undefined,
): Promise<SessionStart> {
  const name = typeof source === 'string' ? `loadSnapshot: ${source}` : 'loadSnapshot';
  const reader = new FramedReader(name, chunksOf(source), signal);
  try {
    const header = checkedHeader(core, name, await reader.header(), reader);
    const { length, stateDtype } = header;
    const history = header.tokens === 'full' ? await readTokens(core, reader, length) : TokenList.sealed(header.tokens);
    const { store } = core.scheduler;
    const checkpoint = await readContent(store, reader, length, stateDtype);
    try {
      await reader.finish();
    } catch (error) {
      store.release(checkpoint);
      throw error;
    }
    return { checkpoint, history };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined || typeof source !== 'string') throw error;
    throw linattnError('ERR_FILE', `${name}: ${(error as Error).message}`, { cause: error });
  } finally {
    await reader.close();
  }
}

/** Bytes read before the event loop has its turn. */
const chunkBytes = 2 ** 20;

async function* chunksOf(source: SnapshotSource): AsyncGenerator<Uint8Array> {
  if (typeof source === 'string') yield* createReadStream(source, { highWaterMark: chunkBytes });
  else if (ArrayBuffer.isView(source)) yield* piecesOf(bytesOf(source));
  else if (typeof source?.[Symbol.asyncIterator] === 'function') yield* source;
  else throw linattnError('ERR_ARGUMENT', `loadSnapshot: give a path, a Uint8Array or an AsyncIterable, got ${source}`);
}

async function* piecesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += chunkBytes) {
    if (at > 0) await setImmediate();
    yield bytes.subarray(at, at + chunkBytes);
  }
}

/** The header, when it is of this model and says what a file of it must say. */
function checkedHeader(
  core: ModelCore,
  name: string,
  header: Record<string, unknown>,
  reader: FramedReader,
): SnapshotHeader {
  const { model, length, stateDtype, tokens, sections } = header as Partial<SnapshotHeader>;
  const { identity } = core;
  if (model?.fingerprint !== identity.fingerprint || model.family !== identity.family) {
    throw linattnError(
      'ERR_SNAPSHOT_MODEL',
      `${name}: made by ${model?.family} ${model?.fingerprint?.slice?.(0, 12)}, this model is ${identity.family} ` +
        identity.fingerprint.slice(0, 12),
    );
  }
  if (model.dtype !== identity.dtype) {
    throw linattnError(
      'ERR_SNAPSHOT_DTYPE',
      `${name}: made with ${model.dtype} weights, this model has ${identity.dtype}; load it with dtype ${model.dtype}`,
    );
  }
  if (!Number.isSafeInteger(length) || length! < 1) throw reader.corrupt(`length must be at least 1, is ${length}`);
  if (!stateDTypes.includes(stateDtype as StateDType)) throw reader.corrupt(`stateDtype is ${stateDtype}`);
  if (tokens !== 'full' && !isTokenHash(tokens, length!)) throw reader.corrupt('tokens must be full or their hash');
  if (JSON.stringify(sections) !== JSON.stringify(sectionsOf(core.scheduler.store, length!, stateDtype!))) {
    throw reader.corrupt('its sections are not those of this model');
  }
  return header as unknown as SnapshotHeader;
}

function isTokenHash(value: unknown, length: number): value is TokenHash {
  const { ends, sha256 } = (value ?? {}) as Partial<TokenHash>;
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256) || !Array.isArray(ends)) return false;
  return ends.at(-1) === length && ends.every((end, i) => Number.isSafeInteger(end) && end > (ends[i - 1] ?? 0));
}

async function readTokens(core: ModelCore, reader: FramedReader, length: number): Promise<TokenList> {
  const tokens = new Int32Array(await reader.section(length * 4));
  if (!tokens.every((token) => token >= 0 && token < core.vocabularySize)) {
    throw reader.corrupt(`a token is not below ${core.vocabularySize}`);
  }
  return TokenList.of(tokens);
}
