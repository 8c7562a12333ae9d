// examples/service.mjs: streams, refuses what is wrong, ends what nobody reads, and drains.
import { startExample, startMs } from '../support/examples';
import { until } from '../support/server';

const example = startExample('service.mjs', [], { PORT: '0' });
let url: string;
beforeAll(async () => {
  await until(() => example.printed.out.includes('\n'), startMs);
  url = /http:\S+/.exec(example.printed.out)![0];
});
afterAll(() => example.child.kill('SIGKILL'));

const complete = (body: unknown, signal?: AbortSignal) =>
  fetch(`${url}/complete`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(signal && { signal }),
  });
const eventsOf = (text: string) =>
  text
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => JSON.parse(event.replace(/^data: /, '')));
const running = async () => ((await (await fetch(`${url}/health`)).json()) as { running: number }).running;

test('streams the text and at last the usage', async () => {
  const events = eventsOf(await (await complete({ prompt: 'Once upon a time', maxTokens: 8 })).text());
  expect(events.length).toBeGreaterThan(2);
  expect(events.at(-1)).toMatchObject({ finishReason: 'length', usage: { completionTokens: 8 } });
  for (const event of events.slice(0, -1)) expect(event).toEqual({ text: expect.any(String) });
});

test('what is wrong with a request is 400 and says what', async () => {
  const wrong = await complete({ prompt: 5 });
  expect(wrong.status).toBe(400);
  expect(await wrong.json()).toEqual({ error: expect.stringContaining('prompt must be a string') });
  expect((await complete('{"prompt": ')).status).toBe(400);
  expect((await complete({})).status).toBe(400);
});

test('a client that leaves ends its generation', async () => {
  const abort = new AbortController();
  const response = await complete({ prompt: 'The sea', maxTokens: 1_000_000 }, abort.signal);
  await response.body!.getReader().read();
  expect(await running()).toBe(1);
  abort.abort();
  await until(async () => (await running()) === 0);
});

test('SIGTERM lets what runs end, and then the process', async () => {
  const response = await complete({ prompt: 'The sea', maxTokens: 300 });
  example.child.kill('SIGTERM');
  expect(eventsOf(await response.text()).at(-1)).toMatchObject({ usage: { completionTokens: expect.any(Number) } });
  expect(await example.ended).toMatchObject({ code: 0, signal: null, err: '' });
});
