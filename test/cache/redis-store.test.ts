// The Redis store against a real server.
import { type RedisClient, RedisStore } from '../../lib/cache/redis-store';
import { load } from '../../lib/generation/load';
import { seeded } from '../support/arrays';
import { reading } from '../support/cached-reading';
import { readGolden } from '../support/golden';
import { startRedis } from '../support/redis-server';
import { bytes, describeRedisStore, settings } from '../support/redis-store';

test('a client without the methods, sizes that are none and a value that is no bytes are refused', async () => {
  const method = async () => null;
  const methods = ['set', 'getBuffer', 'hget', 'hkeys', 'eval'];
  const client = Object.fromEntries(methods.map((name) => [name, method])) as unknown as RedisClient;
  const refused = expect.objectContaining({ code: 'ERR_ARGUMENT' });
  for (const wrong of [null, {}, { ...client, hget: undefined }])
    expect(() => new RedisStore(wrong as never)).toThrow(refused);
  for (const size of [0, -1, 1.5, Number.NaN]) {
    expect(() => new RedisStore(client, { chunkBytes: size })).toThrow(refused);
    expect(() => new RedisStore(client, { ttlSeconds: size })).toThrow(refused);
  }
  await expect(new RedisStore(client).set('a', null as never)).rejects.toEqual(refused);
});

describeRedisStore('RedisStore', (newClient) => {
  test('gives back what was set, in chunks, until it is deleted', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    expect(await store.get('a')).toBeUndefined();
    await store.delete('a');
    for (const length of [0, 1, 999, 1000, 1001, 4500]) {
      await store.set('a', bytes(length, length));
      expect(await store.get('a')).toEqual(bytes(length, length));
    }
    await store.set('b', bytes(1, 1));
    expect([...(await store.keys())].sort()).toEqual(['a', 'b']);
    expect(await client.keys(`${options.prefix}a:*`)).toHaveLength(5); // of the last value only
    expect([...(await new RedisStore(client, settings()).keys())]).toEqual([]);
    await store.delete('a');
    expect([...(await store.keys())]).toEqual(['b']);
    expect(await client.keys(`${options.prefix}a:*`)).toEqual([]);
  });

  test('a value larger than 32 MiB is never one value of Redis', async () => {
    const client = newClient();
    const options = { ...settings(), chunkBytes: 2 ** 30 };
    const store = new RedisStore(client, options);
    await store.set('a', bytes(2 ** 25 + 5, 7));
    const sizes = await Promise.all((await client.keys(`${options.prefix}a:*`)).map((name) => client.strlen(name)));
    expect(sizes.sort((a, b) => a - b)).toEqual([5, 2 ** 25]);
    const value = (await store.get('a'))!;
    expect(Buffer.compare(value, bytes(2 ** 25 + 5, 7))).toBe(0);
  });

  test('a value of which the server has dropped a part is not there', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    await store.set('a', bytes(2500, 1));
    await client.del((await client.keys(`${options.prefix}a:*:1`))[0]!);
    expect(await store.get('a')).toBeUndefined();
    expect([...(await store.keys())]).toEqual([]);
    expect(await client.keys(`${options.prefix}*`)).toEqual([]);
  });

  test('of two who write the same at once one stays, and leaves nothing of the other', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    await Promise.all([store.set('a', bytes(4500, 1)), store.set('a', bytes(1500, 2))]);
    expect(await client.keys(`${options.prefix}a:*`)).toHaveLength(5);
    expect(await store.get('a')).toEqual(bytes(4500, 1));
  });

  /** A client whose method does something else `at` its nth call. */
  const withFault = (
    client: RedisClient,
    method: keyof RedisClient,
    at: number,
    fault: (...args: string[]) => Promise<unknown>,
  ) => {
    let calls = 0;
    return new Proxy(client, {
      get(target, name: keyof RedisClient) {
        const call = (...args: unknown[]) => (target[name] as (...all: unknown[]) => Promise<unknown>)(...args);
        if (name !== method) return call;
        return async (...args: unknown[]) => {
          if (calls++ === at) await fault(...(args as string[]));
          return call(...args);
        };
      },
    });
  };

  test('a state that is written anew while it is read is read, and not deleted', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    await store.set('a', bytes(2500, 1));
    const meanwhile = withFault(client, 'getBuffer', 1, () => store.set('a', bytes(1500, 2)));
    expect(await new RedisStore(meanwhile, options).get('a')).toEqual(bytes(1500, 2));
    expect(await store.get('a')).toEqual(bytes(1500, 2));
  });

  test.each<[keyof RedisClient, number]>([
    ['set', 2],
    ['eval', 0],
  ])('a writing whose %s fails leaves nothing', async (method, at) => {
    const client = newClient();
    const options = settings();
    const full = new Error('OOM command not allowed');
    const failing = withFault(client, method, at, () => Promise.reject(full));
    await expect(new RedisStore(failing, options).set('a', bytes(4500, 1))).rejects.toBe(full);
    expect(await client.keys(`${options.prefix}*`)).toEqual([]);
  });

  test('a writing of which only the last answer is lost is a whole one', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    await store.set('a', bytes(500, 1));
    const late = withFault(client, 'eval', 0, async (script, _, ...rest) => {
      await client.eval(script!, 1, ...rest);
      throw new Error('Command timed out');
    });
    await new RedisStore(late, options).set('a', bytes(1500, 2));
    expect(await store.get('a')).toEqual(bytes(1500, 2));
    expect(await client.keys(`${options.prefix}a:*`)).toHaveLength(2);
  });

  test('a value that lacks a part takes nothing along that was written anew', async () => {
    const client = newClient();
    const options = settings();
    const store = new RedisStore(client, options);
    await store.set('a', bytes(2500, 1));
    await client.del((await client.keys(`${options.prefix}a:*:1`))[0]!);
    const meanwhile = withFault(client, 'eval', 0, () => store.set('a', bytes(1500, 2)));
    expect(await new RedisStore(meanwhile, options).get('a')).toEqual(bytes(1500, 2));
    expect(await store.get('a')).toEqual(bytes(1500, 2));
  });

  test('a time to live begins anew with each use', async () => {
    const client = newClient();
    const options = { ...settings(), ttlSeconds: 100 };
    const store = new RedisStore(client, options);
    await store.set('a', bytes(10, 1));
    const [name] = await client.keys(`${options.prefix}a:*`);
    expect(await client.ttl(name!)).toBeGreaterThan(90);
    await client.expire(name!, 5);
    await store.get('a');
    expect(await client.ttl(name!)).toBeGreaterThan(90);
  });

  test('a model goes on from it, and does without when the server is gone', async () => {
    const own = await startRedis();
    const random = seeded(3);
    const text = Int32Array.from({ length: 300 }, () => random.int(200));
    const options = { model: readGolden('qwen3_5/grouped').folder, maxSequences: 2 };
    const errors: unknown[] = [];
    const open = () => {
      const store = new RedisStore(own.client());
      return load({ ...options, prefixCache: { store, onStoreError: (error) => errors.push(error) } });
    };
    const first = await open();
    const { logits } = await reading(first, text);
    await first.dispose();
    const second = await open();
    expect(await reading(second, text)).toEqual({ cached: 300, logits });
    expect(errors).toEqual([]);
    await own.stop();
    expect((await reading(second, text.subarray(0, 290))).cached).toBe(0);
    await second.dispose();
    expect(errors.length).toBeGreaterThan(0);
  });
});
