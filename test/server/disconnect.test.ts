// Clients that go away, and a server that does.
import { rmSync } from 'node:fs';
import type { ServerOptions } from '../../lib/server/options';
import { type Served, serve, until } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

const folder = tinyModelFolder();
afterAll(() => rmSync(folder, { recursive: true }));
let served: Served;
const open = async (options: Partial<ServerOptions> = {}) => {
  served = await serve({ maxConcurrency: 1, maxCompletionTokens: 1e9, ...options }, folder);
};
afterEach(() => served.close());

const endless = { prompt: 'Hello', temperature: 0, ignore_eos: true, max_tokens: 1e9 };
const short = { ...endless, max_tokens: 3 };
const idle = async () =>
  (await served.metric('linattn_requests_running')) + (await served.metric('linattn_requests_waiting')) === 0;

test.each([
  ['in the middle of a stream', true],
  ['while a whole answer is made', false],
])('a client that goes away %s frees its place', async (_, stream) => {
  await open();
  for (let round = 0; round < 5; round++) {
    const leave = new AbortController();
    const asking = served.post('/v1/completions', { ...endless, stream }, { signal: leave.signal });
    asking.catch(() => undefined);
    if (stream) await (await asking).body!.getReader().read();
    else await until(async () => (await served.metric('linattn_requests_running')) === 1);
    leave.abort();
    await until(idle);
    expect((await served.post('/v1/completions', short)).status).toBe(200);
  }
  expect(await served.metric('linattn_requests_total{route="/v1/completions",status="499"}')).toBe(5);
});

test('a client that goes away in the line, or while its prompt is read, is forgotten', async () => {
  await open();
  const leaves = [new AbortController(), new AbortController()];
  const long = { ...endless, prompt: 'The keeper wrote. '.repeat(20_000) };
  const asking = leaves.map(({ signal }) => served.post('/v1/completions', long, { signal }).catch(() => undefined));
  await until(async () => (await served.metric('linattn_requests_waiting')) === 1);
  leaves[1]!.abort();
  await until(async () => (await served.metric('linattn_requests_waiting')) === 0);
  leaves[0]!.abort();
  await until(idle);
  await Promise.all(asking);
  expect((await served.post('/v1/completions', short)).status).toBe(200);
});

/** The next generation gives out no text until the function that is returned is called. */
function heldBeforeItsText(): () => void {
  const { model } = served;
  const generate = model.generate.bind(model);
  let goOn = () => {};
  const told = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  jest.spyOn(model, 'generate').mockImplementationOnce((options) => {
    const run = generate(options);
    return {
      result: run.result,
      async *[Symbol.asyncIterator]() {
        for await (const chunk of run) {
          await told;
          yield chunk;
        }
      },
    };
  });
  return goOn;
}

describe('a drain', () => {
  test('lets what runs end, refuses what waits, and closes', async () => {
    await open();
    const goOn = heldBeforeItsText();
    const running = await served.post('/v1/completions', { ...endless, max_tokens: 300, stream: true });
    const waiting = served.post('/v1/completions', short);
    await until(async () => (await served.metric('linattn_requests_waiting')) === 1);
    const drained = served.server.drain(30_000);
    expect((await waiting).status).toBe(503);
    expect(await (await waiting).json()).toMatchObject({ error: { code: 'draining', type: 'server_error' } });
    goOn();
    const text = await running.text();
    expect(text).toContain('"finish_reason":"length"');
    expect(text.trimEnd()).toMatch(/data: \[DONE\]$/);
    await drained;
    await expect(served.post('/v1/completions', short)).rejects.toThrow();
  });

  test('aborts what runs beyond its time, and says so', async () => {
    await open({ maxConcurrency: 2 });
    const stream = await served.post('/v1/completions', { ...endless, stream: true });
    const whole = served.post('/v1/completions', endless);
    await until(async () => (await served.metric('linattn_requests_running')) === 2);
    const started = performance.now();
    await served.server.drain(200);
    expect(performance.now() - started).toBeLessThan(2000);
    expect((await whole).status).toBe(503);
    const events = (await stream.text()).trimEnd().split('\n\n');
    expect(JSON.parse(events.at(-1)!.slice('data: '.length))).toMatchObject({ error: { code: 'draining' } });
  });

  test('a client that reads nothing does not hold it up for long', async () => {
    await open();
    await served.post('/v1/completions', { ...endless, max_tokens: 100_000, stream: true });
    const started = performance.now();
    await served.server.drain(100);
    expect(performance.now() - started).toBeLessThan(6000);
  });
});
