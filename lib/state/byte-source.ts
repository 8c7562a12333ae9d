// Where the bytes of a saved state come from: memory, a file, a stream, or values that each hold a piece.
import { type FileHandle, open } from 'node:fs/promises';
import { linattnError } from '../errors';

/** Bytes of a typed array, not copied. */
export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Bytes in their order. Each take() may be called before the one before has answered. */
export interface ByteSource {
  /**
   * The next bytes, fewer where the source ends. They stay as they are, in memory of the source or in `memory`, which holds
   * as many and is free to be used.
   */
  take(bytes: number, memory?: Uint8Array): Promise<Uint8Array>;
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

  constructor(array: ArrayBufferView) {
    this.bytes = array.byteLength > 0 ? bytesOf(array) : new Uint8Array(0);
  }

  async take(bytes: number, memory?: Uint8Array): Promise<Uint8Array> {
    const count = Math.max(0, Math.min(bytes, this.bytes.length - this.at)); // none when their memory has gone
    const taken = (memory ?? Buffer.allocUnsafeSlow(count)).subarray(0, count);
    if (count > 0) taken.set(this.bytes.subarray(this.at, this.at + count));
    this.at += count;
    return bytesOf(taken);
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

  constructor(private readonly path: string) {}

  take(bytes: number, memory = Buffer.allocUnsafeSlow(bytes) as Uint8Array): Promise<Uint8Array> {
    const position = this.at;
    this.at += bytes;
    return this.read(memory.subarray(0, bytes), position);
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

/**
 * Reads a file from `position` on, or from where it stands, into `target`; what was read of it, less than all of it where
 * the file ends.
 */
export async function readAt(handle: FileHandle, target: Uint8Array, position?: number): Promise<Uint8Array> {
  let done = 0;
  while (done < target.length) {
    const from = position === undefined ? null : position + done;
    const { bytesRead } = await handle.read(target, done, target.length - done, from);
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

/** Bytes that nobody else changes, or takes to another thread, while they are checked and written: in `memory`, or copied. */
function kept(value: Uint8Array, memory?: Uint8Array): Uint8Array {
  if (value.buffer === memory?.buffer) return value;
  const isRoomy = memory !== undefined && memory.length >= value.length;
  const copy = isRoomy ? memory.subarray(0, value.length) : Buffer.allocUnsafeSlow(value.length);
  copy.set(value);
  return bytesOf(copy);
}

/** Values that `framed` gave, fetched as they are asked for: the first one has the header, each other one is a block. */
export class ValuesSource implements ByteSource {
  /** The first value, once something was taken. */
  first: Uint8Array | undefined;
  private at = 0;
  private index = 0;

  /** @param value the one of an index, or nothing where there is none */
  constructor(private readonly value: (index: number, memory?: Uint8Array) => Promise<Uint8Array>) {}

  async take(bytes: number, memory?: Uint8Array): Promise<Uint8Array> {
    this.first ??= kept(await this.value(0)); // the header is taken before anything else is asked
    if (this.at === this.first.length) return kept(await this.value(++this.index, memory), memory);
    const taken = this.first.subarray(this.at, this.at + bytes);
    this.at += taken.length;
    return taken;
  }

  async isAtEnd(): Promise<boolean> {
    return this.at === this.first?.length;
  }

  async close(): Promise<void> {}
}
