// --cache: where states of what is read are kept, for later texts that begin the same.
import { type Command, Option } from 'commander';
import { DirectoryStore } from '../cache/directory-store';
import type { PrefixStore } from '../cache/prefix-store';
import { RedisStore } from '../cache/redis-store';
import { linattnError } from '../errors';
import type { LoadOptions } from '../index';
import type { Context } from './context';
import { type ReportFlags, withVariable } from './flags';

export interface CacheFlags {
  cache?: string;
}

export type CacheOptions = Pick<LoadOptions, 'prefixCache'>;

/** Time for Redis to answer before a command begins without it, and for a connection that is broken to close. */
const connectMs = 5000;
const disconnectMs = 200;

export const addCacheFlag = (command: Command): Command =>
  command.addOption(
    withVariable(
      new Option(
        '--cache <place>',
        'keep states of what is read, for later texts that begin the same: a folder, redis://... or memory',
      ),
      'LINATTN_CACHE',
    ),
  );

/**
 * Runs `work` with the options that --cache means to `load`; a connection stays until it has ended. A place that fails
 * makes a warning, and texts are read as if there were none.
 */
export async function withCache<T>(
  { cache, quiet }: CacheFlags & ReportFlags,
  { stderr }: Context,
  work: (options: CacheOptions) => Promise<T>,
): Promise<T> {
  const kept = (store: PrefixStore, place: string, cause: () => Error | undefined = () => undefined): CacheOptions => {
    const onStoreError = (error: unknown) => {
      if (!quiet) stderr.write(`warning: --cache ${place}: ${(cause() ?? (error as Error)).message}\n`);
    };
    return { prefixCache: { store, onStoreError } };
  };
  if (cache === undefined || cache === '') return work({});
  if (cache === 'memory') return work({ prefixCache: {} });
  if (!/^rediss?:\/\//.test(cache)) return work(kept(new DirectoryStore(cache), cache));
  const { client, lastError } = await connect(cache);
  try {
    return await work(kept(new RedisStore(client), placeOf(cache), lastError));
  } finally {
    client.disconnect();
  }
}

/** A client that goes on trying; while there is no connection its calls fail at once. */
async function connect(url: string) {
  if (!URL.canParse(url)) throw linattnError('ERR_ARGUMENT', '--cache must be a folder, redis://host:port or memory');
  const { Redis } = ioredis();
  const times = { connectTimeout: connectMs, disconnectTimeout: disconnectMs };
  const client = new Redis(url, { lazyConnect: true, enableOfflineQueue: false, ...times });
  let failure: Error | undefined;
  client.on('error', (error) => {
    failure = error;
  });
  client.on('ready', () => {
    failure = undefined;
  });
  await client.connect().catch(() => undefined); // told when the store is asked
  return { client, lastError: () => failure };
}

/** A peer that need not be there. */
function ioredis(): typeof import('ioredis') {
  try {
    return require('ioredis');
  } catch (cause) {
    throw linattnError('ERR_UNSUPPORTED', '--cache redis://...: the package ioredis must be installed', { cause });
  }
}

/** Without the password, for messages. */
function placeOf(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}
