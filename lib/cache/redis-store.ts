// A prefix store in Redis, through a client that the caller made (ioredis, or what has the same methods).
import { randomBytes } from 'node:crypto';
import { checkOptions, linattnError, shown } from '../errors';
import { bytesOf } from '../state/byte-source';
import { checkBytes, type PrefixStore } from './prefix-store';
import { abandonScript, commitScript, deleteScript, dropScript, indexName, renewScript } from './redis-scripts';

/** The methods of an ioredis client that are used. */
export interface RedisClient {
  /** Of a cluster, whose scripts reach names of one hash slot only. */
  readonly isCluster?: boolean;
  set(key: string, value: Buffer, expiry: 'EX', seconds: number): Promise<unknown>;
  getBuffer(key: string): Promise<Buffer | null>;
  hget(key: string, field: string): Promise<string | null>;
  hkeys(key: string): Promise<string[]>;
  eval(script: string, keys: number, ...keysAndArguments: string[]): Promise<unknown>;
}

/** Of names that have a hash tag, it alone says in which slot of a cluster they are. */
const isTagged = (prefix: string): boolean => /^[^{]*\{[^}]+\}/.test(prefix);

const methods = ['set', 'getBuffer', 'hget', 'hkeys', 'eval'] as const;

/** Bytes of a Redis value: the server and its replicas handle one in a piece. */
const defaultChunkBytes = 2 ** 25;

/** Chunks that are not named by the index after this long were left by a process that was killed. */
const abandonedSeconds = 3600;

/**
 * A state is written in chunks under names of its own, and is there when the hash `<prefix>index` names them; one whose
 * chunks are not all there (expired, or evicted by the server's maxmemory-policy) is not there, and is taken off the index
 * when it is asked for, or by a later writing. Each change of the index is one step of the server, with the chunks that come
 * and go by it; what a process that is killed leaves goes after an hour.
 */
export class RedisStore implements PrefixStore {
  private readonly prefix: string;
  private readonly ttlSeconds: number | undefined;
  private readonly chunkBytes: number;
  private readonly index: string;
  /** How far the writings have looked through the index for states that are not there any more. */
  private cursor = '0';

  /**
   * @param client stays the caller's, who closes it after the model's dispose
   * @param options prefix: of all names, default `linattn:`; in a cluster, where it has no hash tag, `{linattn}` goes in front
   *   of it, and all states are on one of the nodes; ttlSeconds: how long a state is kept after its last use,
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
    this.prefix = client.isCluster === true && !isTagged(prefix) ? `{linattn}${prefix}` : prefix;
    this.ttlSeconds = ttlSeconds;
    this.chunkBytes = Math.min(chunkBytes, defaultChunkBytes);
    this.index = this.prefix + indexName;
  }

  async get(key: string): Promise<Uint8Array | undefined> {
    let entry = await this.client.hget(this.index, key);
    while (entry !== null) {
      const chunks = await this.chunksOf(this.names(key, entry));
      if (chunks !== undefined) {
        if (this.ttlSeconds !== undefined) await this.step(renewScript, key, entry, String(this.ttlSeconds));
        return bytesOf(Buffer.concat(chunks));
      }
      entry = (await this.step(dropScript, key, entry)) as string | null; // another one when it was written anew meanwhile
    }
    return undefined;
  }

  /** undefined when there is none, or one of them is not there. */
  private async chunksOf(names: readonly string[]): Promise<Buffer[] | undefined> {
    if (names.length === 0) return undefined;
    const chunks: Buffer[] = [];
    for (const name of names) {
      const chunk = await this.client.getBuffer(name);
      if (chunk === null) return undefined;
      chunks.push(chunk);
    }
    return chunks;
  }

  async set(key: string, value: Uint8Array): Promise<void> {
    checkBytes('RedisStore', 'value', value);
    const entry = `${randomBytes(6).toString('hex')}/${Math.max(1, Math.ceil(value.byteLength / this.chunkBytes))}`;
    try {
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      for (const [i, name] of this.names(key, entry).entries()) {
        const chunk = bytes.subarray(i * this.chunkBytes, (i + 1) * this.chunkBytes);
        await this.client.set(name, chunk, 'EX', abandonedSeconds);
      }
      const ttl = String(this.ttlSeconds ?? '');
      const [isNamed, cursor] = (await this.step(commitScript, key, entry, ttl, this.cursor)) as [number, string];
      this.cursor = cursor;
      if (isNamed === 0) throw linattnError('ERR_OUT_OF_MEMORY', `RedisStore: the server kept only a part of ${key}`);
    } catch (error) {
      // Where only the answer was lost, the index names the chunks; where nobody knows, they stay for an hour.
      const isNamed = await this.step(abandonScript, key, entry).catch(() => 0);
      if (isNamed === 0) throw error;
    }
  }

  async delete(key: string): Promise<void> {
    await this.step(deleteScript, key);
  }

  async keys(): Promise<Iterable<string>> {
    return this.client.hkeys(this.index);
  }

  /** The names of a state's chunks, from what the index says of it: `<name of this writing>/<count>`. */
  private names(key: string, entry: string): string[] {
    const [, id, count] = /^([0-9a-f]+)\/(\d{1,6})$/.exec(entry) ?? [];
    return Array.from({ length: Number(count ?? 0) }, (_, i) => `${this.prefix}${key}:${id}:${i}`);
  }

  private step(script: string, ...values: string[]): Promise<unknown> {
    return this.client.eval(script, 1, this.index, ...values);
  }
}

export interface RedisStoreOptions {
  prefix?: string;
  ttlSeconds?: number;
  chunkBytes?: number;
}
