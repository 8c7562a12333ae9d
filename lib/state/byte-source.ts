// Where the bytes of a saved state come from: memory, a file, a stream, or values that each hold a piece.
import { type FileHandle, open } from 'node:fs/promises';
import { linattnError } from '../errors';
import { BlockMemory } from './block-memory';

/** Bytes of a typed array, not copied. */
export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Bytes in their order. Each take() may be called before the one before has answered. */
export interface ByteSource {
  /** The next bytes, fewer where the source ends. They stay as they are. */
  take(bytes: number): Promise<Uint8Array>;
  /** What take() gave is not used any more. */
  give(taken: Uint8Array): void;
  /** Whether nothing follows what was taken. */
  isAtEnd(): Promise<boolean>;
  close(): Promise<void>;
}

/**
 * Bytes of the caller's, copied as they are taken: they may change, or go to another thread with their memory, while those
 * that were taken are checked and written.
 */
export class MemorySource implements ByteSource {
  private at = 0;
  private readonly bytes: Uint8Array;
  private readonly memory = new BlockMemory();

  constructor(array: ArrayBufferView) {
    this.bytes = array.byteLength > 0 ? bytesOf(array) : new Uint8Array(0);
  }

  async take(bytes: number): Promise<Uint8Array> {
    const count = Math.max(0, Math.min(bytes, this.bytes.length - this.at)); // none when their memory has gone
    const taken = this.memory.take(count);
    if (count > 0) taken.set(this.bytes.subarray(this.at, this.at + count));
    this.at += count;
    return taken;
  }

  give(taken: Uint8Array): void {
    this.memory.give(taken);
  }

  async isAtEnd(): Promise<boolean> {
    return this.at >= this.bytes.length;
  }

  async close(): Promise<void> {}
}

/** Work that follows what was asked before it. */
class Line {
  private last: Promise<unknown> = Promise.resolve();

  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const own = this.last.then(work);
    this.last = own.catch(() => undefined);
    return own;
  }
}

interface OpenedFile {
  readonly handle: FileHandle;
  /** It can be read at any position; a pipe only in its order, and only by who opened it first. */
  readonly hasPositions: boolean;
}

async function opened(file: string): Promise<OpenedFile> {
  const handle = await open(file, 'r');
  try {
    return { handle, hasPositions: (await handle.stat()).isFile() };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** A file, or a pipe; opened when it is first asked, for a pipe is open when somebody writes. */
export class FileSource implements ByteSource {
  private at = 0;
  private file: Promise<OpenedFile> | undefined;
  private readonly line = new Line();
  private readonly memory = new BlockMemory();

  constructor(private readonly path: string) {}

  take(bytes: number): Promise<Uint8Array> {
    const position = this.at;
    this.at += bytes;
    return this.read(this.memory.take(bytes), position);
  }

  give(taken: Uint8Array): void {
    this.memory.give(taken);
  }

  async isAtEnd(): Promise<boolean> {
    return (await this.read(new Uint8Array(1), this.at)).length === 0;
  }

  async close(): Promise<void> {
    const file = await this.file?.catch(() => undefined);
    await file?.handle.close();
  }

  private async read(target: Uint8Array, position: number): Promise<Uint8Array> {
    this.file ??= opened(this.path);
    const { handle, hasPositions } = await this.file;
    return hasPositions ? readAt(handle, target, position) : this.line.inTurn(() => readAt(handle, target));
  }
}

/** Bytes of one read of a file: for 2 GiB Node 20 ends the process. */
export const mostReadAtOnce = 2 ** 30;

/**
 * Reads a file from `position` on, or from where it stands, into `target`; what was read of it, less than all of it where
 * the file ends.
 */
export async function readAt(handle: FileHandle, target: Uint8Array, position?: number): Promise<Uint8Array> {
  let done = 0;
  while (done < target.length) {
    const from = position === undefined ? null : position + done;
    const { bytesRead } = await handle.read(target, done, Math.min(target.length - done, mostReadAtOnce), from);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytesOf(target).subarray(0, done);
}

export class StreamSource implements ByteSource {
  private readonly iterator: AsyncIterator<Uint8Array>;
  private chunk: Uint8Array = new Uint8Array(0);
  private readonly line = new Line();

  /** @param name of the source, for errors */
  constructor(
    private readonly name: string,
    chunks: AsyncIterable<Uint8Array>,
  ) {
    this.iterator = chunks[Symbol.asyncIterator]();
  }

  take(bytes: number): Promise<Uint8Array> {
    return this.line.inTurn(() => this.read(bytes));
  }

  give(): void {}

  isAtEnd(): Promise<boolean> {
    return this.line.inTurn(async () => !(await this.fetch()));
  }

  async close(): Promise<void> {
    await this.iterator.return?.();
  }

  /** False at the end. */
  private async fetch(): Promise<boolean> {
    while (this.chunk.length === 0) {
      const { done, value } = await this.iterator.next();
      if (done) return false;
      if (!ArrayBuffer.isView(value)) {
        throw linattnError('ERR_ARGUMENT', `${this.name}: the source must give Uint8Array chunks, got ${typeof value}`);
      }
      this.chunk = bytesOf(value as ArrayBufferView);
    }
    return true;
  }

  /** Memory is taken as bytes arrive, whatever a header promises. */
  private async read(bytes: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let missing = bytes;
    while (missing > 0 && (await this.fetch())) {
      const part = this.chunk.slice(0, missing); // a source may use its memory again
      this.chunk = this.chunk.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    return parts.length === 1 ? parts[0]! : bytesOf(Buffer.concat(parts));
  }
}

/** Values that `framed` gave, fetched as they are asked for: the first one has the header, each other one is a block. */
export class ValuesSource implements ByteSource {
  /** The first value, or nothing where it is not there, once that is known. */
  first: Uint8Array | undefined;
  private started: Promise<Uint8Array | undefined> | undefined;
  private at = 0;
  private index = 0;
  /** Values that were asked for and not taken. */
  private readonly coming: Promise<Uint8Array | undefined>[] = [];

  /**
   * @param value the one of an index, or undefined where there is none: memory that nobody else changes, of `memory`; what
   * it is given it gives back where that is not a part of its answer
   * @param ahead values after the first that are asked for together with it
   */
  constructor(
    private readonly value: (index: number, memory?: Uint8Array) => Promise<Uint8Array | undefined>,
    private readonly memory = new BlockMemory(),
    private readonly ahead = 0,
  ) {}

  /** The first value; undefined when it is not there. */
  start(): Promise<Uint8Array | undefined> {
    this.started ??= this.begin();
    return this.started;
  }

  private async begin(): Promise<Uint8Array | undefined> {
    const first = this.value(0, this.memory.whole());
    first.catch(() => undefined); // told below
    while (this.index < this.ahead) {
      const value = this.value(++this.index, this.memory.whole());
      value.catch(() => undefined); // told when it is taken
      this.coming.push(value);
    }
    const found = await first;
    this.first = found ?? new Uint8Array(0);
    return found;
  }

  async take(bytes: number): Promise<Uint8Array> {
    if (this.first === undefined) await this.start(); // the header is taken before anything else is asked
    const first = this.first!;
    if (this.at === first.length) {
      const next = this.coming.shift() ?? this.value(++this.index, this.memory.take(bytes));
      return (await next) ?? new Uint8Array(0);
    }
    const taken = first.subarray(this.at, this.at + bytes);
    this.at += taken.length;
    return taken;
  }

  give(taken: Uint8Array): void {
    if (taken.buffer !== this.first?.buffer) this.memory.give(taken);
  }

  async isAtEnd(): Promise<boolean> {
    return this.at === this.first?.length;
  }

  async close(): Promise<void> {}

  /** Gives back the first value and what was not taken, once they are there. */
  release(): void {
    for (const value of [this.started, ...this.coming.splice(0)]) {
      value?.then((one) => one && this.memory.give(one)).catch(() => undefined);
    }
  }
}
