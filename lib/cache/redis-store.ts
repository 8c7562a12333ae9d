// A prefix store in Redis, through a client that the caller made (ioredis, or what has the same methods).
import { randomBytes } from 'node:crypto';
import { checkOptions, linattnError, shown } from '../errors';
import { bytesOf } from '../state/byte-source';
import type { PrefixStore } from './prefix-store';

/** The methods of an ioredis client that are used. */
export interface RedisClient {
  set(key: string, value: Buffer): Promise<unknown>;
  getBuffer(key: string): Promise<Buffer | null>;
  del(...keys: string[]): Promise<unknown>;
  expire(key: string, seconds: number): Promise<unknown>;
  hset(key: string, field: string, value: string): Promise<unknown>;
  hget(key: string, field: string): Promise<string | null>;
  hdel(key: string, field: string): Promise<unknown>;
  hkeys(key: string): Promise<string[]>;
}

const methods = ['set', 'getBuffer', 'del', 'expire', 'hset', 'hget', 'hdel', 'hkeys'] as const;

/** Bytes of a Redis value: the server and its replicas handle one in a piece. */
const defaultChunkBytes = 2 ** 25;

/**
 * A state is written in chunks under names of its own, and is there when the hash `<prefix>index` names them; one whose
 * chunks are not all there (expired, or evicted by the server's maxmemory-policy) is not there.
 */
export class RedisStore implements PrefixStore {
  private readonly prefix: string;
  private readonly ttlSeconds: number | undefined;
  private readonly chunkBytes: number;
  private readonly index: string;

  /**
   * @param client stays the caller's, who closes it after the model's dispose
   * @param options prefix: of all names, default `linattn:`; ttlSeconds: how long a state is kept after its last use,
   *   default for ever; chunkBytes: largest value, default and at most 32 MiB
   * @throws LinattnError ERR_ARGUMENT
   */
  constructor(
    private readonly client: RedisClient,
    options: RedisStoreOptions = {},
  ) {
    checkOptions('RedisStore', options);
    const { prefix = 'linattn:', ttlSeconds, chunkBytes = defaultChunkBytes } = options;
    const fail = (message: string): never => {
      throw linattnError('ERR_ARGUMENT', `RedisStore: ${message}`);
    };
    for (const name of methods) {
      if (typeof client?.[name] !== 'function') fail(`client must have a method ${name}, as ioredis has it`);
    }
    if (typeof prefix !== 'string') fail(`prefix must be a string, got ${shown(prefix)}`);
    for (const [name, value] of Object.entries({ ttlSeconds, chunkBytes })) {
      if (value !== undefined && !(Number.isSafeInteger(value) && value > 0))
        fail(`${name} must be 1 or more, got ${shown(value)}`);
    }
    this.prefix = prefix;
    this.ttlSeconds = ttlSeconds;
    this.chunkBytes = Math.min(chunkBytes, defaultChunkBytes);
    this.index = `${prefix}index`;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    let entry = await this.client.hget(this.index, key);
    for (;;) {
      const names = this.names(key, entry);
      if (names.length === 0) return undefined;
      const chunks = await this.chunksOf(names);
      if (chunks !== undefined) {
        await this.renew(names);
        return bytesOf(Buffer.concat(chunks));
      }
      const known = entry;
      entry = await this.client.hget(this.index, key); // another one when it was written anew in the meantime
      if (entry === known) {
        await this.client.hdel(this.index, key);
        await this.client.del(...names); // and no others: the key may have been written anew
        return undefined;
      }
    }
  }

  /** undefined when one of them is not there. */
  private async chunksOf(names: readonly string[]): Promise<Buffer[] | undefined> {
    const chunks: Buffer[] = [];
    for (const name of names) {
      const chunk = await this.client.getBuffer(name);
      if (chunk === null) return undefined;
      chunks.push(chunk);
    }
    return chunks;
  }

  async set(key: string, value: Uint8Array): Promise<void> {
    const entry = `${randomBytes(6).toString('hex')}/${Math.ceil(value.byteLength / this.chunkBytes)}`;
    const names = this.names(key, entry);
    let before: string[] = [];
    try {
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      for (const [i, name] of names.entries()) {
        await this.client.set(name, bytes.subarray(i * this.chunkBytes, (i + 1) * this.chunkBytes));
      }
      await this.renew(names);
      // Asked now, so that of two who write the same state at once the later one knows of the other's chunks.
      before = this.names(key, await this.client.hget(this.index, key));
      await this.client.hset(this.index, key, entry);
    } catch (error) {
      // Where only the answer was lost, the index names the chunks; where nobody knows, they stay.
      const named = await this.client.hget(this.index, key).catch(() => undefined);
      if (named !== entry) {
        if (named !== undefined && names.length > 0) await this.client.del(...names).catch(() => undefined);
        throw error;
      }
    }
    if (before.length > 0) await this.client.del(...before);
  }

  async delete(key: string): Promise<void> {
    const names = this.names(key, await this.client.hget(this.index, key));
    await this.client.hdel(this.index, key);
    if (names.length > 0) await this.client.del(...names);
  }

  async keys(): Promise<Iterable<string>> {
    return this.client.hkeys(this.index);
  }

  /** The names of a state's chunks, from what the index says of it: `<name of this writing>/<count>`. */
  private names(key: string, entry: string | null): string[] {
    const [, id, count] = /^([0-9a-f]+)\/(\d{1,6})$/.exec(entry ?? '') ?? [];
    return Array.from({ length: Number(count ?? 0) }, (_, i) => `${this.prefix}${key}:${id}:${i}`);
  }

  private async renew(names: readonly string[]): Promise<void> {
    if (this.ttlSeconds === undefined) return;
    for (const name of names) await this.client.expire(name, this.ttlSeconds);
  }
}

export interface RedisStoreOptions {
  prefix?: string;
  ttlSeconds?: number;
  chunkBytes?: number;
}
