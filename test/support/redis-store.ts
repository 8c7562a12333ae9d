// What the tests of RedisStore share: a server of the file's own, and stores that know nothing of each other.
import type Redis from 'ioredis';
import { describeWithRedis, type RedisServer, startRedis } from './redis-server';

/** Tests of a server, each with clients of its own. */
export function describeRedisStore(name: string, tests: (client: () => Redis) => void): void {
  describeWithRedis(name, () => {
    let server: RedisServer;
    beforeAll(async () => {
      server = await startRedis();
    });
    afterAll(() => server.stop());
    tests(() => server.client());
  });
}

let stores = 0;

/** Of a store that nobody else has; a value of some thousand bytes has some chunks. */
export const settings = () => ({ prefix: `test${stores++}:`, chunkBytes: 1000 });

export const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill);
