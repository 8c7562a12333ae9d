// A state that outlives its session: to start other sessions from, and to save.
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, unlink } from 'node:fs/promises';
import path from 'node:path';
import { checkOptions, linattnError } from '../errors';
import { contentOf, type Section, sectionsOf } from '../state/checkpoint-content';
import type { Checkpoint } from '../state/sequence-store';
import { bytesOf, framed } from '../state/snapshot-format';
import { type StateDType, stateDTypes } from '../state/state-dtype';
import type { ModelCore } from './model-core';
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
  content(call: string): { readonly checkpoint: Checkpoint; readonly history: TokenList } {
    if (this.disposed) throw linattnError('ERR_DISPOSED', `${call}: the snapshot was disposed`);
    return { checkpoint: this.checkpoint, history: this.history };
  }

  async serialize(options: SerializeOptions = {}): Promise<Uint8Array> {
    checkOptions('serialize', options);
    return this.core.during(options.signal, async (signal) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of this.chunks('serialize', { ...options, signal })) chunks.push(chunk);
      return bytesOf(Buffer.concat(chunks));
    });
  }

  async save(file: string, options: SerializeOptions = {}): Promise<void> {
    checkOptions('save', options);
    if (typeof file !== 'string' || file === '') {
      throw linattnError(
        'ERR_ARGUMENT',
        `save: path must be a string, got ${file === '' ? 'an empty one' : typeof file}`,
      );
    }
    return this.core.during(options.signal, (signal) => this.write(file, this.chunks('save', { ...options, signal })));
  }

  private async write(file: string, chunks: AsyncGenerator<Uint8Array>): Promise<void> {
    const beside = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString('hex')}.part`);
    let handle: FileHandle | undefined;
    try {
      for await (const chunk of chunks) {
        handle ??= await open(beside, 'wx');
        await handle.writeFile(chunk);
      }
      await handle!.sync();
      await handle!.close();
      await rename(beside, file);
    } catch (error) {
      await handle?.close();
      if (handle !== undefined) await unlink(beside).catch(() => undefined);
      if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
      throw linattnError('ERR_FILE', `save: ${file}: ${(error as Error).message}`, { cause: error });
    }
    await syncFolder(path.dirname(file));
  }

  private async *chunks(call: string, options: SerializeOptions): AsyncGenerator<Uint8Array> {
    const { checkpoint, history } = this.content(call);
    const { stateDtype = 'float32', tokens = history.unknownStart > 0 ? 'hash' : 'full', signal } = options;
    if (!stateDTypes.includes(stateDtype)) {
      throw linattnError('ERR_ARGUMENT', `${call}: stateDtype must be ${stateDTypes.join(', ')}, got ${stateDtype}`);
    }
    if (tokens !== 'full' && tokens !== 'hash') {
      throw linattnError('ERR_ARGUMENT', `${call}: tokens must be full or hash, got ${tokens}`);
    }
    if (tokens === 'full' && history.unknownStart > 0) {
      throw linattnError(
        'ERR_ARGUMENT',
        `${call}: tokens must be hash where only the hash of the first ${history.unknownStart} is known, got full`,
      );
    }
    const { store } = this.core.scheduler;
    const header: SnapshotHeader = {
      model: this.core.identity,
      length: checkpoint.length,
      stateDtype,
      tokens: tokens === 'full' ? 'full' : history.hash(),
      sections: sectionsOf(store, checkpoint.length, stateDtype),
    };
    async function* sections(): AsyncGenerator<Uint8Array> {
      if (tokens === 'full') yield bytesOf(history.toArray());
      yield* contentOf(store, checkpoint, stateDtype);
    }
    store.hold(checkpoint);
    try {
      yield* framed(header, sections(), signal);
    } finally {
      store.release(checkpoint);
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

/** A rename is on the disk when its folder is. Where folders cannot be opened (Windows) the system sees to it. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  try {
    await handle?.sync();
  } finally {
    await handle?.close();
  }
}
