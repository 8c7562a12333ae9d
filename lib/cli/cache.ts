// --cache: where states of what is read are kept, for later texts that begin the same.
import { setTimeout as delay } from 'node:timers/promises';
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
  { stderr, interrupts }: Context,
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
  const { client, lastError } = await connect(cache, interrupts.signal);
  try {
    return await work(kept(new RedisStore(client), placeOf(cache), lastError));
  } finally {
    client.disconnect();
  }
}

/** A client that goes on trying; while there is no connection its calls fail at once. Waits for the first one for a while. */
async function connect(url: string, signal: AbortSignal) {
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
  const waited = new AbortController();
  const patience = delay(connectMs, undefined, { signal: AbortSignal.any([signal, waited.signal]) });
  // Why there is none is told when the store is asked.
  await Promise.race([client.connect(), patience]).catch(() => undefined);
  waited.abort();
  const silent = new Error(`no answer in ${connectMs} ms`);
  return { client, lastError: () => failure ?? (client.status === 'ready' ? undefined : silent) };
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
