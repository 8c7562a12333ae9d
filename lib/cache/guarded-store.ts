// States in a user's store, as values that are written and read so that a state is whole or not there.
import { createHash } from 'node:crypto';
import { BlockMemory, blocksAtOnce, type Pin } from '../state/block-memory';
import { type ByteSource, bytesOf, ValuesSource } from '../state/byte-source';
import { checksumBytes, formatVersion } from '../state/snapshot-format';
import { AskedStore, shortMs, stateMs } from './asked-store';
import type { PrefixStore } from './prefix-store';
import { UnderWay } from './under-way';

/**
 * How the keys of a state's blocks after the first begin, which are values of their own: `<key>-<checksum of the first>-`,
 * then their numbers, so that blocks of two writings do not mix.
 */
const blockPrefix = (key: string, first: Uint8Array): string =>
  `${key}-${Buffer.from(first.slice(-checksumBytes)).toString('hex')}-`;

/** Anything but bytes counts as none of them, and so do bytes whose memory has gone. */
const bytesOrNone = (value: Uint8Array): Uint8Array =>
  ArrayBuffer.isView(value) && value.byteLength > 0 ? bytesOf(value) : new Uint8Array(0);

const littleEndian = (tokens: Int32Array): Uint8Array =>
  new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);

/** A state that the store lists. */
export interface Candidate {
  readonly key: string;
  /** How the listed keys of its blocks begin, where those are of one writing, and how many there are. */
  readonly prefix?: string | undefined;
  readonly blocks?: number;
}

/** What a store has of a state beside its first value. */
interface Writing {
  readonly key: string;
  /** How the names of its blocks begin. */
  readonly prefix: string;
  readonly blocks: string[];
}

export class GuardedStore extends AskedStore {
  private readonly prefix: string;
  /** For what is read. */
  readonly memory: BlockMemory;
  /** Writings that did not end, some of whose blocks the store may still have. */
  private unfinished: Writing[] = [];
  private readonly reads = new UnderWay();

  /**
   * @param model what the states must agree with: those of other models, or in another format, have other keys
   * @param pin makes the memory for what is read there from the start
   */
  constructor(store: PrefixStore, model: object, onError: (error: unknown) => void, pin?: Pin) {
    super(store, onError);
    this.memory = new BlockMemory(pin);
    const kind = JSON.stringify({ format: formatVersion, ...model });
    const mark = createHash('sha256').update(kind).digest('hex').slice(0, 16);
    this.prefix = `${mark}-`;
  }

  /** Whether it is to be asked to take a state of so many bytes. */
  takes(bytes: number): boolean {
    return !this.rests && bytes <= (this.store.maxBytes ?? Number.POSITIVE_INFINITY);
  }

  /** `<model>-<tokens>-<SHA-256 of the tokens>` */
  keyOf(tokens: Int32Array): string {
    return this.key(tokens.length, createHash('sha256').update(littleEndian(tokens)).digest('hex'));
  }

  /** Tokens of a text whose state has this key. */
  lengthOf(key: string): number {
    return Number.parseInt(key.slice(this.prefix.length), 10);
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
   * What `use` makes of a state, whose blocks come from the store as they are asked for; undefined when it is not there, or
   * is wrong, and is deleted then. What was written in its place in the meantime is not deleted, but read.
   */
  read<T>(
    candidate: Candidate,
    use: (state: ByteSource) => Promise<T | 'wrong'>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    return this.reads.add(this.readNow(candidate, use, signal));
  }

  private async readNow<T>(
    candidate: Candidate,
    use: (state: ByteSource) => Promise<T | 'wrong'>,
    signal: AbortSignal,
  ): Promise<T | undefined> {
    const { key } = candidate;
    const state = this.stateOf(candidate, signal);
    try {
      const isThere = await state.start().then(
        (first) => first !== undefined,
        () => undefined, // the store failed, or there is no memory
      );
      signal.throwIfAborted();
      if (isThere === false) await this.dropAll(`${key}-`, signal); // nobody would ask for its other values again
      if (!isThere) return undefined;
      const made = await use(state);
      if (made !== 'wrong') return made;
      const next = await this.get(key, signal);
      if (next === undefined) return undefined;
      if (Buffer.compare(next, state.first!) === 0) {
        await this.guarded(shortMs, () => this.store.delete(key), signal);
        await this.dropAll(blockPrefix(key, next), signal);
        return undefined;
      }
    } finally {
      state.release();
    }
    const written = this.stateOf({ key }, signal);
    try {
      const made = await use(written);
      return made === 'wrong' ? undefined : made;
    } finally {
      written.release();
    }
  }

  /** The blocks that are listed are asked for together with the first value, which tells whether they are its own. */
  private stateOf({ key, prefix, blocks = 0 }: Candidate, signal: AbortSignal): ValuesSource {
    const value = async (index: number, memory?: Uint8Array): Promise<Uint8Array | undefined> => {
      if (index === 0) return this.kept(key, signal, memory);
      if (prefix === undefined) return this.kept(blockPrefix(key, (await state.start())!) + index, signal, memory);
      const listed = await this.kept(prefix + index, signal, memory);
      const first = await state.start().catch(() => undefined);
      if (first === undefined || blockPrefix(key, first) === prefix) return listed;
      if (listed !== undefined) this.memory.give(listed);
      return this.kept(blockPrefix(key, first) + index, signal, this.memory.whole());
    };
    const ahead = prefix === undefined ? 0 : Math.min(blocks, blocksAtOnce - 1);
    const state: ValuesSource = new ValuesSource(value, this.memory, ahead);
    return state;
  }

  private async get(key: string, signal?: AbortSignal): Promise<Uint8Array | undefined> {
    const value = await this.guarded(stateMs, () => this.store.get(key), signal);
    return value === undefined ? undefined : this.counted(value);
  }

  private counted(value: Uint8Array): Uint8Array {
    const bytes = bytesOrNone(value);
    this.counts.storeReadBytes += bytes.byteLength;
    return bytes;
  }

  /**
   * A value where nobody else changes it, copied at once unless the store put it into `memory`; undefined when it is not
   * there. Where `memory` is not its own it is given back, as soon as the store, which may still write to it, is done with
   * it. Throws when the store fails.
   */
  private async kept(key: string, signal: AbortSignal, memory?: Uint8Array): Promise<Uint8Array | undefined> {
    let call: Promise<unknown> = Promise.resolve();
    const ask = () => {
      const answer = (async () => this.store.get(key, memory))();
      call = answer;
      return answer;
    };
    let value: Uint8Array | undefined;
    try {
      value = await this.guarded(stateMs, ask, signal);
    } finally {
      const giveBack = () => memory && this.memory.give(memory);
      if (value === undefined) call.then(giveBack, giveBack);
    }
    if (value !== undefined) return this.memory.keep(this.counted(value), memory);
    if (this.rests) throw new Error('the store failed while a state was read');
    return undefined;
  }

  /**
   * Writes a state, in the pieces that `framed` gives; whether the store took all of it. The first piece, without which the
   * others are not asked for, goes last; then the others of the writing in whose place it is go. What a writing leaves that
   * does not end is deleted. Rejects with what `pieces` rejects with.
   */
  async set(key: string, pieces: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<boolean> {
    const blocks: string[] = [];
    let first: Uint8Array | undefined;
    let isWhole = false;
    try {
      for await (const piece of pieces) {
        if (first === undefined) {
          first = piece; // at once, for from here on the source holds what it reads
          if (this.rests || !(await this.deleteUnfinished())) return false;
          continue;
        }
        const name = blockPrefix(key, first) + (blocks.length + 1);
        blocks.push(name);
        if (!(await this.setValue(name, piece))) return false;
      }
      const before = await this.get(key); // only now, so that of two at once the later one knows of the other
      isWhole = await this.setValue(key, first!);
      if (!isWhole) return false;
      const [old, own] = [before ?? first!, first!].map((value) => blockPrefix(key, value)) as [string, string];
      if (old !== own) await this.dropAll(old);
      return true;
    } finally {
      if (!isWhole && blocks.length > 0) {
        this.unfinished.push({ key, prefix: blockPrefix(key, first!), blocks });
        await this.deleteUnfinished();
      }
    }
  }

  /**
   * Also while the store rests, for it may be full and yet delete. False when a call fails: the next writing begins with
   * what is left then.
   */
  private async deleteUnfinished(): Promise<boolean> {
    for (let writing = this.unfinished.pop(); writing !== undefined; writing = this.unfinished.pop()) {
      if (await this.deleteBlocks(writing)) continue;
      this.unfinished.push(writing);
      return false;
    }
    return true;
  }

  private async deleteBlocks({ key, prefix, blocks }: Writing): Promise<boolean> {
    const ended = await this.asked(stateMs, async () => ({ first: await this.store.get(key) }));
    if (ended === undefined) return false;
    // Another process may have written the same state: the blocks are its own then.
    if (ended.first !== undefined && blockPrefix(key, bytesOrNone(ended.first)) === prefix) return true;
    for (const name of blocks) {
      if (!(await this.asked(shortMs, () => this.store.delete(name).then(() => true)))) return false;
    }
    return true;
  }

  /** After the states that are read now: somebody waits for those, and a store has one bandwidth. */
  private async setValue(key: string, value: Uint8Array): Promise<boolean> {
    await this.reads.ended();
    const isTaken = (await this.guarded(stateMs, () => this.store.set(key, value).then(() => true))) ?? false;
    if (isTaken) this.counts.storeWrittenBytes += value.byteLength;
    return isTaken;
  }

  /** All values whose keys begin so. */
  private async dropAll(prefix: string, signal?: AbortSignal): Promise<void> {
    const known = (await this.guarded(shortMs, () => this.store.keys(), signal)) ?? [];
    for (const key of Array.from(known, String).filter((name) => name.startsWith(prefix))) {
      await this.guarded(shortMs, () => this.store.delete(key), signal);
    }
  }

  /** What waits for an answer keeps the process no longer. Waits for the device's copies out of the memory. */
  dispose(): void {
    this.unref();
    this.memory.dispose();
  }
}
