// Reads a saved state back. Nothing of it is used before all of its bytes have proved right.
import { linattnError } from '../errors';
import { type ByteSource, FileSource, MemorySource, StreamSource } from '../state/byte-source';
import { readContent, sectionsOf } from '../state/checkpoint-content';
import { FramedReader } from '../state/snapshot-format';
import { type StateDType, stateDTypes } from '../state/state-dtype';
import type { ModelCore } from './model-core';
import type { SessionStart } from './session';
import { checkPath, ModelSnapshot, type SnapshotHeader } from './snapshot';
import { leadingTokenIds } from './token-ids';
import { type TokenHash, TokenList } from './token-list';

export type SnapshotSource = string | Uint8Array | AsyncIterable<Uint8Array>;

/** @throws LinattnError ERR_SNAPSHOT_*, ERR_FILE, ERR_ARGUMENT, ERR_OUT_OF_MEMORY; signal.reason */
export async function loadSnapshot(
  core: ModelCore,
  source: SnapshotSource,
  signal: AbortSignal | undefined,
): Promise<ModelSnapshot> {
  const place = { dispose: () => undefined }; // what is being read has a state on the device already
  core.addSnapshot(place);
  let start: SessionStart;
  try {
    start = await readSource(core, source, signal);
  } finally {
    core.removeSnapshot(place);
  }
  try {
    return new ModelSnapshot(core, start.checkpoint, start.history);
  } finally {
    core.scheduler.store.release(start.checkpoint);
  }
}

async function readSource(
  core: ModelCore,
  source: SnapshotSource,
  signal: AbortSignal | undefined,
): Promise<SessionStart> {
  if (typeof source !== 'string') return readSnapshot(core, 'loadSnapshot', sourceOf(source), signal);
  checkPath('loadSnapshot', source);
  const name = `loadSnapshot: ${source}`;
  try {
    return await readSnapshot(core, name, new FileSource(source), signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException | null)?.syscall === undefined) throw error;
    throw linattnError('ERR_FILE', `${name}: ${(error as Error).message}`, { cause: error });
  }
}

function sourceOf(source: Exclude<SnapshotSource, string>): ByteSource {
  if (ArrayBuffer.isView(source)) return new MemorySource(source);
  if (typeof source?.[Symbol.asyncIterator] === 'function') return new StreamSource('loadSnapshot', source);
  throw linattnError(
    'ERR_ARGUMENT',
    `loadSnapshot: give a path, a Uint8Array or an AsyncIterable, got ${source === null ? 'null' : typeof source}`,
  );
}

/**
 * A saved state as a checkpoint, which the caller releases, and its tokens; the source is closed at the end.
 * @param name what errors begin with
 */
export async function readSnapshot(
  core: ModelCore,
  name: string,
  source: ByteSource,
  signal: AbortSignal | undefined,
): Promise<SessionStart> {
  const reader = new FramedReader(name, source, signal);
  try {
    const { length, stateDtype, tokens: saved } = checkedHeader(core, name, await reader.header(), reader);
    const { store } = core.scheduler;
    const { checkpoint, tokens } = await readContent(store, reader, {
      length,
      stateDtype,
      hasTokens: saved === 'full',
    });
    try {
      return { checkpoint, history: saved === 'full' ? checkedTokens(core, reader, tokens!) : TokenList.sealed(saved) };
    } catch (error) {
      store.release(checkpoint);
      throw error;
    }
  } finally {
    await reader.close();
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

function checkedTokens(core: ModelCore, reader: FramedReader, tokens: Int32Array): TokenList {
  if (leadingTokenIds(tokens, core.vocabularySize) < tokens.length) {
    throw reader.corrupt(`a token is not below ${core.vocabularySize}`);
  }
  return TokenList.of(tokens);
}
