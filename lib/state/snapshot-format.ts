// The bytes of a saved state, version 2; all numbers little-endian:
//   8 bytes   the letters LINATTN and a zero
//   uint32    version
//   uint32    length of the header
//   header    JSON: which model, how many tokens, which sections follow
//   32 bytes  SHA-256 of all before
//   blocks    the content in pieces of 16 MiB, the last one shorter; after each its checksum:
//   8 bytes     XXH64 of the piece; the seed is the first 6 bytes of the SHA-256 plus the number of the block from 0
// A reader checks the header before it believes it, and each block before it is used; blocks are read, checked and placed
// several at a time, and the state counts when all of them are in their place.
import { createHash } from 'node:crypto';
import { addon, request } from '../binding/load';
import { type LinattnError, linattnError } from '../errors';
import { blocksAtOnce } from './block-memory';
import type { ByteSource } from './byte-source';

const magic = Buffer.from('LINATTN\0', 'latin1');
/** Stands in every saved state; only this one is read. */
export const formatVersion = 2;
const preludeBytes = magic.length + 8;
const hashBytes = 32;
const maxHeaderBytes = 2 ** 24;
/** Of the content; a block has its checksum besides. */
const blockBytes = 2 ** 24;
export const checksumBytes = 8;

const sha256 = (...parts: Uint8Array[]): Buffer =>
  parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();

const seedOf = (headerHash: Buffer): number => headerHash.readUIntLE(0, 6);

/** What the sections of a state hold, back to back. */
export interface Content {
  readonly bytes: number;
  /** Writes the bytes from `at` on into `target`, which is zeros. */
  fill(target: Uint8Array, at: number): Promise<void>;
}

/** The whole file: all before the blocks with the first one, then each other one. Throws signal.reason between two of them. */
export async function* framed(
  header: object,
  { bytes, fill }: Content,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const json = Buffer.from(JSON.stringify(header));
  const prelude = Buffer.alloc(preludeBytes);
  magic.copy(prelude);
  prelude.writeUInt32LE(formatVersion, magic.length);
  prelude.writeUInt32LE(json.length, magic.length + 4);
  const hash = sha256(prelude, json);
  const head = Buffer.concat([prelude, json, hash]);
  for (let at = 0; at < bytes; at += blockBytes) {
    signal?.throwIfAborted();
    const size = Math.min(blockBytes, bytes - at);
    const start = at === 0 ? head.length : 0;
    const piece = new Uint8Array(start + size + checksumBytes);
    if (at === 0) piece.set(head);
    await fill(piece.subarray(start, start + size), at);
    const block = piece.subarray(start);
    await request((number) => addon.makeChecksum(block, seedOf(hash) + at / blockBytes, number));
    yield piece;
  }
  signal?.throwIfAborted();
}

/** Reads what `framed` made. Every fault of the bytes is an ERR_SNAPSHOT_* that begins with `name`. */
export class FramedReader {
  private seed = 0;
  private stopped = false;

  constructor(
    private readonly name: string,
    private readonly source: ByteSource,
    private readonly signal?: AbortSignal,
  ) {}

  corrupt(message: string): Error {
    return linattnError('ERR_SNAPSHOT_CORRUPT', `${this.name}: ${message}`);
  }

  /** The header, whose bytes are as they were written; what it says is not checked yet. */
  header(): Promise<Record<string, unknown>> {
    return this.orAborted(() => this.readHeader());
  }

  private async readHeader(): Promise<Record<string, unknown>> {
    const prelude = Buffer.from(await this.take(preludeBytes));
    if (!prelude.subarray(0, magic.length).equals(magic)) throw this.corrupt('these bytes are no snapshot of linattn');
    const found = prelude.readUInt32LE(magic.length);
    if (found !== formatVersion) {
      throw linattnError(
        'ERR_SNAPSHOT_VERSION',
        `${this.name}: version ${formatVersion} is read here, this is ${found}`,
      );
    }
    const length = prelude.readUInt32LE(magic.length + 4);
    if (length > maxHeaderBytes) throw this.corrupt(`a header of ${length} bytes, at most ${maxHeaderBytes} are read`);
    const json = Buffer.from(await this.take(length));
    const hash = sha256(prelude, json);
    if (!hash.equals(await this.take(hashBytes))) throw this.corrupt('its header was changed');
    this.seed = seedOf(hash);
    try {
      const header: unknown = JSON.parse(json.toString('utf8'));
      if (typeof header === 'object' && header !== null && !Array.isArray(header)) return { ...header };
    } catch {
      // said below
    }
    throw this.corrupt('its header is not a JSON object');
  }

  /**
   * Gives each block of the content, which has `bytes` bytes, to `place`, once it has proved to be as it was written: in
   * any order, `at` bytes from the start, not used any more once `place` has settled. Resolves when all of them are placed
   * and nothing follows them.
   */
  async content(bytes: number, place: (block: Uint8Array, at: number) => Promise<void>): Promise<void> {
    let next = 0;
    const lane = async () => {
      while (next * blockBytes < bytes && !this.stopped) {
        const i = next++;
        const size = Math.min(blockBytes, bytes - i * blockBytes) + checksumBytes;
        const block = await this.take(size);
        try {
          await this.check(block, i);
          if (!this.stopped) await place(block.subarray(0, -checksumBytes), i * blockBytes);
        } finally {
          this.source.give(block);
        }
      }
    };
    const lanes = async () => {
      await Promise.all(Array.from({ length: blocksAtOnce }, lane));
      if (!(await this.source.isAtEnd())) throw this.corrupt('more bytes follow its end');
    };
    try {
      await this.orAborted(lanes);
    } catch (error) {
      this.stopped = true;
      throw error;
    }
  }

  private async check(block: Uint8Array, index: number): Promise<void> {
    try {
      await request((number) => addon.checkChecksum(block, this.seed + index, number));
    } catch (error) {
      if ((error as LinattnError).code === 'ERR_SNAPSHOT_CORRUPT') throw this.corrupt('its content was changed');
      throw error;
    }
  }

  /** Lets go of the source; one that has not answered when the signal came, or a block proved false, is not waited for. */
  async close(): Promise<void> {
    const closed = this.source.close();
    if (this.stopped || this.signal?.aborted) closed.catch(() => undefined);
    else await closed;
  }

  private async take(bytes: number): Promise<Uint8Array> {
    const taken = await this.source.take(bytes);
    if (taken.length === bytes) return taken;
    this.source.give(taken);
    if (taken.length < bytes) throw this.corrupt(`it ends ${bytes - taken.length} bytes too early`);
    throw this.corrupt(`${taken.length} bytes stand where ${bytes} were written`);
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
}
