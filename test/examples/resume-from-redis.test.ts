// examples/resume-from-redis.mjs: each run goes on where the last one ended, and a lost race is told.
import { runExample, startExample, startMs } from '../support/examples';
import { describeWithRedis, type RedisServer, startRedis } from '../support/redis-server';
import { until } from '../support/server';

describeWithRedis('resume from Redis', () => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis();
  });
  afterAll(() => server.stop());
  const run = (...args: string[]) => runExample('resume-from-redis.mjs', args, { REDIS_URL: server.url });
  const readBefore = (err: string) => /^(\d+) of (\d+) tokens/.exec(err)!.slice(1).map(Number);

  test('a second process reads the new text only', async () => {
    const first = await run('a', 'Once upon a time there was a king');
    expect(first.code).toBe(0);
    const [none, begun] = readBefore(first.err);
    expect(none).toBe(0);
    const second = await run('a', ' His daughter');
    expect(second.code).toBe(0);
    const [known, all] = readBefore(second.err);
    expect(known).toBe(begun! + 60);
    expect(all! - known!).toBeLessThan(5);
    expect(second.out).not.toBe(first.out);
    const other = await run('b', ' His daughter');
    expect(readBefore(other.err)[0]).toBe(0);
    expect(await server.client().ttl('conversation:a')).toBeGreaterThan(3600);
  });

  test('a turn that another process has overtaken is not written', async () => {
    const client = server.client();
    // On a busy machine it may have ended before this process writes: then once more, in another conversation.
    for (let tries = 3; ; tries--) {
      const id = `race-${tries}`;
      const slow = startExample('resume-from-redis.mjs', [id, 'The sea was'], { REDIS_URL: server.url });
      await until(() => slow.printed.out !== '', startMs); // it watches the conversation, and writes
      await client.set(`conversation:${id}`, 'of another');
      const { code, err } = await slow.ended;
      if (code === 0 && tries > 1) continue;
      expect(err).toContain(`${id} went on elsewhere`);
      expect(code).toBe(1);
      expect(await client.get(`conversation:${id}`)).toBe('of another');
      break;
    }
  });

  test('without a text it says how it is called', async () => {
    expect(await run('a')).toMatchObject({ code: 2, err: expect.stringContaining('usage') });
  });
});
