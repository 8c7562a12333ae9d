// A state that outlives its session: to start other sessions from, and to save.
import { checkOptions, linattnError, shown } from '../errors';
import { bytesOf } from '../state/byte-source';
import { contentOf, type Section, sectionsOf } from '../state/checkpoint-content';
import { writeDurably } from '../state/durable-file';
import type { Checkpoint } from '../state/sequence-store';
import { framed } from '../state/snapshot-format';
import { type StateDType, stateDTypes } from '../state/state-dtype';
import type { ModelCore } from './model-core';
import type { SessionStart } from './session';
import type { TokenHash, TokenList } from './token-list';

export interface SerializeOptions {
  /** Of the recurrent state; the keys and values of softmax layers stay as they are. Default float32, which loses nothing. */
  stateDtype?: StateDType;
  /**
   * full: the token ids are in the file. hash: only their SHA-256, so that the text cannot be read from it; a session
   * made from it goes on, and knows its prompt again when it is given. Default full, or hash where the ids are not known.
   */
  tokens?: 'full' | 'hash';
  signal?: AbortSignal;
}

/** State on the device, immutable. Outlives its session, not its model. */
export interface Snapshot extends Disposable {
  /** Tokens that it stands for. */
  readonly length: number;
  /** Bytes on the device; sessions and snapshots share them as long as they can. */
  readonly byteLength: number;
  /** The state as bytes for `model.loadSnapshot`. ERR_DISPOSED, ERR_ARGUMENT, signal.reason. */
  serialize(options?: SerializeOptions): Promise<Uint8Array>;
  /** The same in a file: written beside it, flushed to the disk, then renamed, so that `path` is whole or untouched. */
  save(path: string, options?: SerializeOptions): Promise<void>;
  /** Idempotent. */
  dispose(): void;
}

/** ERR_ARGUMENT unless it may be the path of a file. */
export function checkPath(call: string, file: unknown): void {
  if (typeof file === 'string' && file !== '' && !file.includes('\0')) return;
  const got = typeof file !== 'string' ? typeof file : file === '' ? 'an empty one' : 'one with a zero in it';
  throw linattnError('ERR_ARGUMENT', `${call}: path must be a string, got ${got}`);
}

/** What the header of a saved state says. */
export interface SnapshotHeader {
  readonly model: { readonly family: string; readonly dtype: string; readonly fingerprint: string };
  readonly length: number;
  readonly stateDtype: StateDType;
  readonly tokens: 'full' | TokenHash;
  readonly sections: readonly Section[];
}

export class ModelSnapshot implements Snapshot {
  readonly length: number;
  readonly byteLength: number;
  private disposed = false;

  constructor(
    readonly core: ModelCore,
    private readonly checkpoint: Checkpoint,
    private readonly history: TokenList,
  ) {
    core.addSnapshot(this);
    core.scheduler.store.hold(checkpoint);
    this.length = checkpoint.length;
    this.byteLength = core.scheduler.store.checkpointBytes(checkpoint);
  }

  /** For a new session. */
  content(call: string): SessionStart {
    if (this.disposed) throw linattnError('ERR_DISPOSED', `${call}: the snapshot was disposed`);
    return { checkpoint: this.checkpoint, history: this.history };
  }

  async serialize(options: SerializeOptions = {}): Promise<Uint8Array> {
    checkOptions('serialize', options);
    return this.core.during(options.signal, async (signal) => {
      const chunks = await collected(this.chunks('serialize', { ...options, signal }));
      return chunks.length === 1 ? chunks[0]! : bytesOf(Buffer.concat(chunks));
    });
  }

  async save(file: string, options: SerializeOptions = {}): Promise<void> {
    checkOptions('save', options);
    checkPath('save', file);
    return this.core.during(options.signal, (signal) => this.write(file, this.chunks('save', { ...options, signal })));
  }

  private async write(file: string, chunks: AsyncGenerator<Uint8Array>): Promise<void> {
    try {
      await writeDurably('save', file, chunks);
    } catch (error) {
      if ((error as NodeJS.ErrnoException | null)?.syscall === undefined) throw error;
      throw linattnError('ERR_FILE', `save: ${file}: ${(error as Error).message}`, { cause: error });
    }
  }

  private async *chunks(call: string, options: SerializeOptions): AsyncGenerator<Uint8Array> {
    const content = this.content(call);
    const { store } = this.core.scheduler;
    store.hold(content.checkpoint);
    try {
      yield* snapshotChunks(this.core, call, content, options);
    } finally {
      store.release(content.checkpoint);
    }
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.core.removeSnapshot(this);
    this.core.scheduler.store.release(this.checkpoint);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * A state as the bytes that loadSnapshot reads; the caller holds it until the end.
 * @param turn resolves when the device may be asked for the next part
 */
export async function* snapshotChunks(
  core: ModelCore,
  call: string,
  { checkpoint, history }: SessionStart,
  options: SerializeOptions,
  turn?: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  const { stateDtype = 'float32', tokens = history.unknownStart > 0 ? 'hash' : 'full', signal } = options;
  if (!stateDTypes.includes(stateDtype)) {
    throw linattnError(
      'ERR_ARGUMENT',
      `${call}: stateDtype must be ${stateDTypes.join(', ')}, got ${shown(stateDtype)}`,
    );
  }
  if (tokens !== 'full' && tokens !== 'hash') {
    throw linattnError('ERR_ARGUMENT', `${call}: tokens must be full or hash, got ${shown(tokens)}`);
  }
  if (tokens === 'full' && history.unknownStart > 0) {
    throw linattnError(
      'ERR_ARGUMENT',
      `${call}: tokens must be hash where only the hash of the first ${history.unknownStart} is known, got full`,
    );
  }
  const { store } = core.scheduler;
  const header: SnapshotHeader = {
    model: core.identity,
    length: checkpoint.length,
    stateDtype,
    tokens: tokens === 'full' ? 'full' : history.hash(),
    sections: sectionsOf(store, checkpoint.length, stateDtype),
  };
  signal?.throwIfAborted();
  const saved = tokens === 'full' ? history.toArray() : undefined;
  yield* framed(header, await contentOf(store, checkpoint, stateDtype, saved, turn), signal);
}

export async function collected(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return all;
}
