// The bytes of a saved state, version 1; all numbers little-endian:
//   8 bytes   the letters LINATTN and a zero
//   uint32    version
//   uint32    length of the header
//   header    JSON: which model, how many tokens, which sections follow
//   32 bytes  SHA-256 of all before
//   sections  back to back, in the order of the header
//   32 bytes  SHA-256 of the sections
// A reader checks the header before it believes it, and the sections before anybody uses them.
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { linattnError } from '../errors';

const magic = Buffer.from('LINATTN\0', 'latin1');
const version = 1;
const preludeBytes = magic.length + 8;
const hashBytes = 32;
const maxHeaderBytes = 2 ** 24;
/** Largest chunk given out, and bytes hashed before the event loop has its turn. */
const chunkBytes = 2 ** 20;

const sha256 = (...parts: Uint8Array[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

/** Bytes of a typed array, not copied. */
export const bytesOf = (array: ArrayBufferView): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** The whole file in chunks of at most 1 MiB. Throws signal.reason between two of them. */
export async function* framed(
  header: object,
  sections: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const json = Buffer.from(JSON.stringify(header));
  const prelude = Buffer.alloc(preludeBytes);
  magic.copy(prelude);
  prelude.writeUInt32LE(version, magic.length);
  prelude.writeUInt32LE(json.length, magic.length + 4);
  signal?.throwIfAborted();
  yield Buffer.concat([prelude, json, sha256(prelude, json)]);
  const hash = createHash('sha256');
  for await (const section of sections) {
    for (let at = 0; at < section.length; at += chunkBytes) {
      signal?.throwIfAborted();
      const chunk = section.subarray(at, at + chunkBytes);
      hash.update(chunk);
      yield chunk;
      if (chunk.length === chunkBytes) await setImmediate();
    }
  }
  signal?.throwIfAborted();
  yield hash.digest();
}

/** Reads what `framed` made. Every fault of the bytes is an ERR_SNAPSHOT_* that begins with `name`. */
export class FramedReader {
  private readonly source: AsyncIterator<Uint8Array>;
  private chunk: Uint8Array = new Uint8Array(0);
  private readonly hash = createHash('sha256');

  constructor(
    private readonly name: string,
    source: AsyncIterable<Uint8Array>,
    private readonly signal?: AbortSignal,
  ) {
    this.source = source[Symbol.asyncIterator]();
  }

  corrupt(message: string): Error {
    return linattnError('ERR_SNAPSHOT_CORRUPT', `${this.name}: ${message}`);
  }

  /** The header, whose bytes are as they were written; what it says is not checked yet. */
  async header(): Promise<Record<string, unknown>> {
    const prelude = Buffer.from(await this.read(preludeBytes));
    if (!prelude.subarray(0, magic.length).equals(magic)) throw this.corrupt('these bytes are no snapshot of linattn');
    const found = prelude.readUInt32LE(magic.length);
    if (found !== version) {
      throw linattnError('ERR_SNAPSHOT_VERSION', `${this.name}: version ${version} is read here, this is ${found}`);
    }
    const length = prelude.readUInt32LE(magic.length + 4);
    if (length > maxHeaderBytes) throw this.corrupt(`a header of ${length} bytes, at most ${maxHeaderBytes} are read`);
    const json = Buffer.from(await this.read(length));
    if (!sha256(prelude, json).equals(await this.read(hashBytes))) throw this.corrupt('its header was changed');
    try {
      const header: unknown = JSON.parse(json.toString('utf8'));
      if (typeof header === 'object' && header !== null && !Array.isArray(header)) return { ...header };
    } catch {
      // said below
    }
    throw this.corrupt('its header is not a JSON object');
  }

  /** The next bytes of the sections, in memory of their own. */
  async section(bytes: number): Promise<ArrayBuffer> {
    const array = await this.read(bytes);
    this.hash.update(array);
    return array.buffer as ArrayBuffer;
  }

  /** After the last section: ERR_SNAPSHOT_CORRUPT unless all of them are as they were written and nothing follows. */
  async finish(): Promise<void> {
    if (!this.hash.digest().equals(await this.read(hashBytes))) throw this.corrupt('its content was changed');
    while (this.chunk.length === 0) if (!(await this.next())) return;
    throw this.corrupt('more bytes follow its end');
  }

  /** Lets go of the source; one that has not answered when the signal came is not waited for. */
  async close(): Promise<void> {
    const closed = this.source.return?.();
    if (this.signal?.aborted) closed?.catch(() => undefined);
    else await closed;
  }

  private async next(): Promise<boolean> {
    const { done, value } = await this.orAborted(() => this.source.next());
    if (done) return false;
    if (!ArrayBuffer.isView(value)) {
      throw linattnError('ERR_ARGUMENT', `${this.name}: the source must give Uint8Array chunks, got ${typeof value}`);
    }
    this.chunk = bytesOf(value as ArrayBufferView);
    return true;
  }

  private async orAborted<T>(work: () => Promise<T>): Promise<T> {
    const { signal } = this;
    if (signal === undefined) return work();
    signal.throwIfAborted();
    let abort = () => {};
    const aborted = new Promise<never>((_, reject) => {
      abort = () => reject(signal.reason);
    });
    signal.addEventListener('abort', abort);
    try {
      return await Promise.race([work(), aborted]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  /** Memory is taken as bytes arrive, whatever a header promises. */
  private async read(bytes: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for (let missing = bytes; missing > 0; ) {
      if (this.chunk.length === 0 && !(await this.next())) throw this.corrupt(`it ends ${missing} bytes too early`);
      const part = this.chunk.subarray(0, missing);
      this.chunk = this.chunk.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    const all = new Uint8Array(bytes);
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}
