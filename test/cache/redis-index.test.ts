// The index of the Redis store and its values: they agree after deaths, races, evictions and expiries.
import type Redis from 'ioredis';
import { type RedisClient, RedisStore } from '../../lib/cache/redis-store';
import { seeded } from '../support/arrays';
import { startRedis } from '../support/redis-server';
import { bytes, describeRedisStore, settings } from '../support/redis-store';

describeRedisStore('the index of RedisStore', (newClient) => {
  type Settings = ReturnType<typeof settings>;

  /** Chunks that the index names and that are not there, and those without an end of their own that it does not name. */
  const disagreements = async (client: Redis, { prefix }: Settings) => {
    const named = new Set<string>();
    for (const [key, entry] of Object.entries(await client.hgetall(`${prefix}index`))) {
      const [id, count] = entry.split('/');
      for (let i = 0; i < Number(count); i++) named.add(`${prefix}${key}:${id}:${i}`);
    }
    const there = (await client.keys(`${prefix}*`)).filter((name) => name !== `${prefix}index`);
    const missing = [...named].filter((name) => !there.includes(name));
    const lost: string[] = [];
    for (const name of there) if (!named.has(name) && (await client.ttl(name)) < 0) lost.push(name);
    return { missing, lost };
  };
  const agreement = { missing: [], lost: [] };

  /** A client of a process that is killed after so many commands. */
  const killedAfter = (client: RedisClient, commands: number) => {
    let left = commands;
    return new Proxy(client, {
      get: (target, name: keyof RedisClient) =>
        typeof target[name] !== 'function'
          ? target[name]
          : async (...args: unknown[]) => {
              if (left-- <= 0) throw new Error('killed');
              return (target[name] as (...all: unknown[]) => Promise<unknown>)(...args);
            },
    });
  };

  test.each<[string, (store: RedisStore) => Promise<unknown>]>([
    ['sets a new value', (store) => store.set('b', bytes(2500, 2))],
    ['sets a value anew', (store) => store.set('a', bytes(4500, 2))],
    ['deletes', (store) => store.delete('a')],
    ['finds a value that lacks a part', (store) => store.get('part')],
  ])('a process that is killed while it %s', async (_, work) => {
    const client = newClient();
    for (let commands = 0; ; commands++) {
      const options = settings();
      const store = new RedisStore(client, options);
      await store.set('a', bytes(2500, 1));
      await store.set('part', bytes(2500, 1));
      await client.del((await client.keys(`${options.prefix}part:*:1`))[0]!);
      const isDone = await work(new RedisStore(killedAfter(client, commands), options)).then(
        () => true,
        () => false,
      );
      await store.get('part'); // takes it off
      expect(await disagreements(client, options)).toEqual(agreement);
      const a = await store.get('a');
      if (a !== undefined) expect([bytes(2500, 1), bytes(4500, 2)]).toContainEqual(a);
      if (isDone) break;
      expect(commands).toBeLessThan(20);
    }
  });

  test('several processes that set, read and delete the same keys', async () => {
    const client = newClient();
    const options = settings();
    const worker = async (seed: number) => {
      const random = seeded(seed);
      const store = new RedisStore(newClient(), options);
      for (let i = 0; i < 80; i++) {
        const key = `k${random.int(2)}`;
        const kind = random.int(4);
        if (kind === 0) await store.delete(key);
        else if (kind === 1) await store.set(key, bytes(500 + random.int(3000), seed));
        else {
          const value = await store.get(key);
          if (value !== undefined) expect(value).toEqual(bytes(value.length, value[0]!));
          else if (kind === 2) await store.set(key, bytes(500 + random.int(3000), seed));
        }
      }
    };
    await Promise.all([1, 2, 3, 4].map(worker));
    expect(await disagreements(client, options)).toEqual(agreement);
  });

  test('a value is not named when a part of it has gone before the rest was written', async () => {
    const client = newClient();
    const options = settings();
    const losing = new Proxy(client as RedisClient, {
      get: (target, name: keyof RedisClient) =>
        name !== 'eval'
          ? (...args: unknown[]) => (target[name] as (...all: unknown[]) => Promise<unknown>)(...args)
          : async (...args: Parameters<RedisClient['eval']>) => {
              await client.del(...(await client.keys(`${options.prefix}a:*:0`)), 'none');
              return target.eval(...args);
            },
    });
    await expect(new RedisStore(losing, options).set('a', bytes(2500, 1))).rejects.toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
    });
    expect(await client.keys(`${options.prefix}*`)).toEqual([]);
  });

  test('what has expired is taken off by later writings', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    for (let i = 0; i < 600; i++) await store.set(`old-${i}`, bytes(1, 1)); // more than Redis looks through in one step
    await client.del(...(await client.keys(`${options.prefix}old-*`)));
    expect([...(await store.keys())]).toHaveLength(600);
    for (let i = 0; i < 150; i++) await store.set('new', bytes(1, 1));
    expect([...(await store.keys())]).toEqual(['new']);
    expect(await store.get('new')).toEqual(bytes(1, 1));
  });

  test('an index that knows names of its client only', async () => {
    const options = settings();
    const client = newClient().duplicate({ keyPrefix: 'app:' });
    const store = new RedisStore(client, options);
    await store.set('a', bytes(2500, 1));
    await store.set('a', bytes(1500, 2));
    expect(await store.get('a')).toEqual(bytes(1500, 2));
    expect(await newClient().keys(`app:${options.prefix}a:*`)).toHaveLength(2);
    await store.delete('a');
    expect(await newClient().keys(`*${options.prefix}*`)).toEqual([]);
    client.disconnect();
  });

  test('a server that evicts, values or the index itself', async () => {
    const own = await startRedis();
    try {
      const client = own.client();
      await client.config('SET', 'maxmemory', '4mb', 'maxmemory-policy', 'allkeys-random');
      const options = settings();
      const store = new RedisStore(client, options);
      let read = 0;
      for (let round = 0; round < 60; round++) {
        await store.set(`k${round % 30}`, bytes(200_000, round)).catch((error) => {
          expect(error.code).toBe('ERR_OUT_OF_MEMORY');
        });
        for (const key of await store.keys()) {
          const value = await store.get(key);
          if (value === undefined) continue;
          expect(Buffer.compare(value, bytes(200_000, value[0]!))).toBe(0);
          read++;
        }
      }
      expect(read).toBeGreaterThan(0);
      expect(Number(/evicted_keys:(\d+)/.exec(await client.info('stats'))![1])).toBeGreaterThan(0);
      await client.config('SET', 'maxmemory', '0');
      for (const key of await store.keys()) await store.get(key);
      expect((await disagreements(client, options)).missing).toEqual([]);
    } finally {
      await own.stop();
    }
  });
});
