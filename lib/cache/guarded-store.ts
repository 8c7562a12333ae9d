// A user's store, asked so that its failures and silences are misses: after one the store is left alone for a while.
import { createHash } from 'node:crypto';
import { BlockMemory, blocksAtOnce } from '../state/block-memory';
import { type ByteSource, bytesOf, ValuesSource } from '../state/byte-source';
import { checksumBytes, formatVersion } from '../state/snapshot-format';
import type { PrefixStore } from './prefix-store';

/** How long a store may take for what shows that it is alive, and for a state of any size. */
const shortMs = 5000;
const stateMs = 60_000;
/** How long a store is left alone after it failed. */
const restMs = 10_000;

/**
 * How the keys of a state's blocks after the first begin, which are values of their own: `<key>-<checksum of the first>-`,
 * then their numbers, so that blocks of two writings do not mix.
 */
const blockPrefix = (key: string, first: Uint8Array): string =>
  `${key}-${Buffer.from(first.slice(-checksumBytes)).toString('hex')}-`;

const littleEndian = (tokens: Int32Array): Uint8Array =>
  new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);

/** A state that the store lists. */
export interface Candidate {
  readonly key: string;
  /** How the listed keys of its blocks begin, where those are of one writing, and how many there are. */
  readonly prefix?: string | undefined;
  readonly blocks?: number;
}

export interface StoreCounts {
  readonly storeReadBytes: number;
  readonly storeWrittenBytes: number;
  /** Calls that failed or got no answer in time. */
  readonly storeErrors: number;
}

export class GuardedStore {
  private readonly prefix: string;
  readonly counts = { storeReadBytes: 0, storeWrittenBytes: 0, storeErrors: 0 };
  private restsUntil = 0;

  /**
   * @param model what the states must agree with: those of other models, or in another format, have other keys
   * @param memory for what is read
   */
  constructor(
    private readonly store: PrefixStore,
    model: object,
    private readonly onError: (error: unknown) => void,
    readonly memory = new BlockMemory(),
  ) {
    const kind = JSON.stringify({ format: formatVersion, ...model });
    const mark = createHash('sha256').update(kind).digest('hex').slice(0, 16);
    this.prefix = `${mark}-`;
  }

  /** It failed not long ago. */
  get rests(): boolean {
    return performance.now() < this.restsUntil;
  }

  /** Whether it is to be asked to take a state of so many bytes. */
  takes(bytes: number): boolean {
    return !this.rests && bytes <= (this.store.maxBytes ?? Number.POSITIVE_INFINITY);
  }

  /** `<model>-<tokens>-<SHA-256 of the tokens>` */
  keyOf(tokens: Int32Array): string {
    return this.key(tokens.length, createHash('sha256').update(littleEndian(tokens)).digest('hex'));
  }

  private key(length: number, sha256: string): string {
    return `${this.prefix}${length}-${sha256}`;
  }

  /** States that by their hashes begin `tokens` and have more than `beyond` of them, the longest first. */
  async candidates(tokens: Int32Array, beyond: number, signal: AbortSignal): Promise<Candidate[]> {
    const list = async () => new Set(Array.from(await this.store.keys(), String));
    const known = (await this.guarded(shortMs, list, signal)) ?? new Set<string>();
    const lengths = new Set<number>();
    const blocks = new Map<string, Candidate>();
    for (const name of known) {
      if (!name.startsWith(this.prefix)) continue;
      const parts = /^((\d+)-[0-9a-f]{64})(?:(-[0-9a-f]{16}-)\d+)?$/.exec(name.slice(this.prefix.length));
      const length = Number(parts?.[2] ?? 0);
      if (!(length > beyond && length <= tokens.length)) continue;
      lengths.add(length);
      if (parts![3] === undefined) continue;
      const key = this.prefix + parts![1];
      const prefix = key + parts![3];
      const others = blocks.get(key);
      const isOne = others === undefined || others.prefix === prefix;
      blocks.set(key, { key, prefix: isOne ? prefix : undefined, blocks: (others?.blocks ?? 0) + 1 });
    }
    const hash = createHash('sha256');
    const found: Candidate[] = [];
    let hashed = 0;
    for (const length of [...lengths].sort((a, b) => a - b)) {
      hash.update(littleEndian(tokens.subarray(hashed, length)));
      hashed = length;
      const key = this.key(length, hash.copy().digest('hex'));
      if (known.has(key)) found.unshift(blocks.get(key) ?? { key });
    }
    return found;
  }

  /**
   * A state, as its blocks come from the store, some of them asked for before the first one has told their keys; undefined
   * when it is not there.
   */
  async open({ key, prefix, blocks = 0 }: Candidate, signal: AbortSignal): Promise<ByteSource | undefined> {
    const block = async (name: string, room: Uint8Array | undefined) => {
      const value = await this.get(name, signal, room);
      if (value === undefined && this.rests) throw new Error('the store failed while a state was read');
      return value ?? new Uint8Array(0);
    };
    const value = async (index: number, room: Uint8Array | undefined) => {
      if (index === 0) return (await this.get(key, signal, room)) ?? new Uint8Array(0);
      const listed = prefix === undefined ? undefined : await block(prefix + index, room);
      const own = blockPrefix(key, await first);
      return listed !== undefined && own === prefix ? listed : block(own + index, room);
    };
    const ahead = prefix === undefined ? 0 : Math.min(blocks, blocksAtOnce - 1);
    const source = new ValuesSource(value, this.memory, ahead);
    const first = source.start();
    if ((await first).length > 0) return source;
    if (!this.rests) await this.delete(key, signal); // nobody would ask for its other values again
    return undefined;
  }

  /** Anything but bytes counts as none of them. */
  private async get(key: string, signal?: AbortSignal, memory?: Uint8Array): Promise<Uint8Array | undefined> {
    const value = await this.guarded(stateMs, () => this.store.get(key, memory), signal);
    if (value === undefined) return undefined;
    if (!ArrayBuffer.isView(value) || value.byteLength === 0) return new Uint8Array(0); // or its memory has gone
    this.counts.storeReadBytes += value.byteLength;
    return bytesOf(value);
  }

  /**
   * Writes a state, in the pieces that `framed` gives; whether the store took all of it. The first piece, without which the
   * others are not asked for, goes last; then the others of the writing in whose place it is go. Rejects with what `pieces`
   * rejects with.
   */
  async set(key: string, pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<boolean> {
    const blocks = new Set<string>();
    let first: Uint8Array | undefined;
    try {
      for await (const piece of pieces) {
        if (first === undefined) {
          first = piece;
          continue;
        }
        const name = blockPrefix(key, first) + (blocks.size + 1);
        if (!(await this.setValue(name, piece))) return false;
        blocks.add(name);
      }
    } catch (error) {
      const same = await this.get(key); // another process may have written the same state: the blocks are its own then
      if (first !== undefined && (same === undefined || blockPrefix(key, same) !== blockPrefix(key, first))) {
        for (const name of blocks) await this.guarded(shortMs, () => this.store.delete(name));
      }
      throw error;
    }
    const before = await this.get(key); // only now, so that of two at once the later one knows of the other
    if (!(await this.setValue(key, first!))) return false;
    const [old, own] = [before ?? first!, first!].map((value) => blockPrefix(key, value)) as [string, string];
    if (old !== own) await this.dropAll(old);
    return true;
  }

  private async setValue(key: string, value: Uint8Array): Promise<boolean> {
    const isTaken = (await this.guarded(stateMs, () => this.store.set(key, value).then(() => true))) ?? false;
    if (isTaken) this.counts.storeWrittenBytes += value.byteLength;
    return isTaken;
  }

  /** A state with all that was ever written under its name. */
  async delete(key: string, signal: AbortSignal): Promise<void> {
    await this.guarded(shortMs, () => this.store.delete(key), signal);
    await this.dropAll(`${key}-`, signal);
  }

  /** All values whose keys begin so. */
  private async dropAll(prefix: string, signal?: AbortSignal): Promise<void> {
    const known = (await this.guarded(shortMs, () => this.store.keys(), signal)) ?? [];
    for (const key of Array.from(known, String).filter((name) => name.startsWith(prefix))) {
      await this.guarded(shortMs, () => this.store.delete(key), signal);
    }
  }

  /** undefined when the store failed, is late, or rests. Rejects with signal.reason only. */
  private async guarded<T>(answerMs: number, call: () => Promise<T>, signal?: AbortSignal): Promise<T | undefined> {
    signal?.throwIfAborted();
    if (this.rests) return undefined;
    let stop = () => {};
    const stopped = new Promise<never>((_, reject) => {
      const timer = setTimeout(() => reject(new Error(`the store gave no answer in ${answerMs} ms`)), answerMs);
      const abort = () => reject(signal!.reason);
      signal?.addEventListener('abort', abort);
      stop = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
      };
    });
    try {
      return await Promise.race([(async () => call())(), stopped]);
    } catch (error) {
      signal?.throwIfAborted();
      this.restsUntil = performance.now() + restMs;
      this.counts.storeErrors++;
      queueMicrotask(() => this.onError(error)); // what it throws is its own affair
      return undefined;
    } finally {
      stop();
    }
  }
}
