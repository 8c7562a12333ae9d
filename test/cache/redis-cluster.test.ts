// The Redis store in a cluster, whose scripts reach names of one hash slot only.
import { RedisStore } from '../../lib/cache/redis-store';
import { type RedisCluster, startRedisCluster } from '../support/redis-cluster';
import { describeWithRedis } from '../support/redis-server';
import { bytes } from '../support/redis-store';

describeWithRedis('RedisStore in a cluster', () => {
  let cluster: RedisCluster;
  beforeAll(async () => {
    cluster = await startRedisCluster();
  });
  afterAll(() => cluster.stop());

  /** On each of the nodes. */
  const names = () => Promise.all(cluster.nodes.map((node) => node.client().keys('*')));

  test.each([
    ['no prefix', undefined, '{linattn}linattn:'],
    ['a prefix', 'mine:', '{linattn}mine:'],
    ['a prefix with an empty tag', '{}mine{x}:', '{linattn}{}mine{x}:'],
    ['a prefix with a tag', 'of{mine}:', 'of{mine}:'],
  ])('all of a value is in one slot: %s', async (_, prefix, beginning) => {
    const store = new RedisStore(cluster.client, { ...(prefix !== undefined && { prefix }), chunkBytes: 1000 });
    for (const [key, length] of [
      ['a', 2500],
      ['b', 500],
      ['a', 3500],
    ] as const) {
      await store.set(key, bytes(length, 1));
      expect(await store.get(key)).toEqual(bytes(length, 1));
    }
    expect([...(await store.keys())].sort()).toEqual(['a', 'b']);
    await store.delete('b');
    const [one, other] = (await names()).sort((first, second) => second.length - first.length);
    expect(one).toHaveLength(5); // the index and the chunks of the last value
    for (const name of one!) expect(name.startsWith(beginning)).toBe(true);
    expect(other).toEqual([]);
    await store.delete('a');
    expect((await names()).flat()).toEqual([]);
  });
});
