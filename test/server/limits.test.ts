// What the server refuses, and how it says so.
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { request } from 'node:http';
import { type AddressInfo, connect, createServer } from 'node:net';
import { text as textOf } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { answerMalformed } from '../../lib/server/malformed-request';
import type { ServerOptions } from '../../lib/server/options';
import { type Served, serve, until } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

const folder = tinyModelFolder();
afterAll(() => rmSync(folder, { recursive: true }));
const open: Served[] = [];
async function served(options: Partial<ServerOptions> = {}): Promise<Served> {
  const one = await serve(options, folder);
  open.push(one);
  return one;
}
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

const greedy = { prompt: 'Hello', temperature: 0, ignore_eos: true };
const errorOf = async (response: Response) => {
  const { error } = (await response.json()) as {
    error: { message: string; type: string; param: string; code: string };
  };
  expect(Object.keys(error).sort()).toEqual(['code', 'message', 'param', 'type']);
  return { status: response.status, ...error };
};

test('bodies that are no request', async () => {
  const { post, url } = await served({ maxBodyBytes: 1000 });
  const bad = async (body: unknown, init: RequestInit = {}) => errorOf(await post('/v1/completions', body, init));
  expect(await bad('{"prompt":')).toMatchObject({ status: 400, code: 'invalid_request' });
  expect(await bad('')).toMatchObject({ status: 400 });
  expect(await bad('[]')).toMatchObject({ status: 400, message: 'the body must be a JSON object' });
  expect(await bad('{"__proto__": {"prompt": "x"}}')).toMatchObject({ status: 400 });
  expect(await bad('null')).toMatchObject({ status: 400 });
  expect(await bad({ prompt: 'x'.repeat(2000) })).toMatchObject({ status: 413, code: 'body_too_large' });
  const headers = { 'content-type': 'text/plain' };
  expect(await bad(greedy, { headers })).toMatchObject({ status: 415, code: 'unsupported_media_type' });
  expect(await errorOf(await post('/v1/engines', {}))).toMatchObject({ status: 404, code: 'unknown_url' });
  expect(await errorOf(await fetch(`${url}/v1/completions`))).toMatchObject({ status: 404 });
  expect(await errorOf(await post('/v1/embeddings', { input: [] }))).toMatchObject({ status: 400, param: 'input' });
});

test('bodies that nest without end, or hold what cannot be printed', async () => {
  const failures: unknown[] = [];
  const { post } = await served({ onError: (error) => failures.push(error) });
  const deep = '['.repeat(100_000) + ']'.repeat(100_000);
  const odd = '{"toString": 1, "valueOf": 1}';
  for (const inner of [deep, odd, `[${odd}]`, `[[${odd}]]`]) {
    for (const [path, body] of [
      ['completions', `{"prompt": ${inner}}`],
      ['completions', `{"prompt": "a", "n": ${inner}}`],
      ['completions', `{"prompt": "a", "stop": ${inner}}`],
      ['chat/completions', `{"messages": [{"role": ${inner}, "content": "a"}]}`],
      ['chat/completions', `{"messages": [{"role": "user", "content": ${inner}}]}`],
      ['embeddings', `{"input": ${inner}}`],
      ['sessions/restore', `{"file": ${inner}}`],
    ] as const) {
      const { status } = await errorOf(await post(`/v1/${path}`, body));
      expect({ path, body: body.slice(0, 80), status }).toEqual({ path, body: body.slice(0, 80), status: 400 });
    }
  }
  expect(failures).toEqual([]);
});

test('a request without a body may name its type all the same', async () => {
  const { url, post } = await served();
  const headers = { 'content-type': 'application/json' };
  const created = await fetch(`${url}/v1/sessions`, { method: 'POST', headers });
  expect(created.status).toBe(200);
  const { id } = (await created.json()) as { id: string };
  expect((await fetch(`${url}/v1/sessions/${id}`, { method: 'DELETE', headers })).status).toBe(200);
  expect(await errorOf(await post('/v1/completions', ''))).toMatchObject({ status: 400 });
});

test('a URL that cannot be decoded is an error in the same form', async () => {
  const { url } = await served();
  expect(await errorOf(await fetch(`${url}/v1/sessions/%E0%A4%A`))).toMatchObject({ status: 400 });
});

test.each([
  [{ prompt: undefined }, 'prompt'],
  [{ prompt: 5 }, 'prompt'],
  [{ prompt: ['a', 'b'] }, 'prompt'],
  [{ max_tokens: -1 }, 'max_tokens'],
  [{ max_tokens: 1.5 }, 'max_tokens'],
  [{ max_tokens: 1e9 }, 'max_tokens'],
  [{ temperature: 'hot' }, 'temperature'],
  [{ stop: ['a', ''] }, 'stop'],
  [{ stop: Array.from({ length: 17 }, String) }, 'stop'],
  [{ stream: 'yes' }, 'stream'],
  [{ stream_options: true }, 'stream_options'],
  [{ n: 2 }, 'n'],
  [{ echo: true }, 'echo'],
  [{ logprobs: 3 }, 'logprobs'],
  [{ logit_bias: { 5: 1 } }, 'logit_bias'],
  [{ frequency_penalty: 0.5 }, 'frequency_penalty'],
  [{ model: 7 }, 'model'],
])('%j is 400 and names the field', async (more, param) => {
  const { post } = await served();
  expect(await errorOf(await post('/v1/completions', { ...greedy, ...more }))).toMatchObject({ status: 400, param });
});

test('fields that are unknown, null or ask for nothing are no failure', async () => {
  const { post } = await served();
  const harmless = { n: 1, logprobs: null, logit_bias: {}, user: 'me', store: true, stop: null, presence_penalty: 0 };
  expect((await post('/v1/completions', { ...greedy, max_tokens: 2, ...harmless })).status).toBe(200);
});

test('a prompt that is too long', async () => {
  const { post } = await served({ maxPromptTokens: 10 });
  const long = await errorOf(await post('/v1/completions', { ...greedy, prompt: 'x'.repeat(11) }));
  expect(long).toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'prompt' });
  expect((await post('/v1/completions', { ...greedy, prompt: 'x'.repeat(10), max_tokens: 1 })).status).toBe(200);
  expect(await errorOf(await post('/v1/embeddings', { input: ['x'.repeat(6), 'y'.repeat(6)] }))).toMatchObject({
    code: 'context_length_exceeded',
  });
});

test('an API key', async () => {
  const { url, post, client } = await served({ apiKey: 'sesame' });
  const bearer = (key: string) => post('/v1/completions', greedy, { headers: { authorization: key } });
  expect(await errorOf(await bearer('Bearer guess'))).toMatchObject({ status: 401, code: 'invalid_api_key' });
  expect(await errorOf(await bearer('sesame'))).toMatchObject({ status: 401, code: 'missing_api_key' });
  for (const path of ['/v1/models', '/metrics', '/v1/nothing']) expect((await fetch(url + path)).status).toBe(401);
  for (const path of ['/', '/health']) expect((await fetch(url + path)).status).toBe(200);
  expect((await client.models.list()).data).toHaveLength(1);
  await expect(client.withOptions({ apiKey: 'wrong' }).models.list()).rejects.toMatchObject({ status: 401 });
});

test('a foreign name for this machine is refused where there is no key', async () => {
  const { url } = await served();
  const status = (host: string) =>
    new Promise((resolve, reject) => {
      request(`${url}/v1/models`, { headers: { host } }, (response) => resolve(response.resume().statusCode))
        .on('error', reject)
        .end();
    });
  expect(await status('evil.example')).toBe(403);
  expect(await status('localhost:8080')).toBe(200);
});

test('a foreign page is refused where there is no key, the page of the server is not', async () => {
  const { url } = await served();
  const open = (origin: string, key?: string) =>
    fetch(`${url}/v1/sessions`, {
      method: 'POST',
      headers: { origin, ...(key && { authorization: `Bearer ${key}` }) },
    });
  for (const origin of ['http://evil.example', 'http://127.0.0.1:1', 'null']) {
    expect(await errorOf(await open(origin))).toMatchObject({ status: 403, code: 'forbidden_origin' });
  }
  expect((await open(url)).status).toBe(200);
});

test('what is no request is answered in the same form', async () => {
  const { url } = await served();
  const { port } = new URL(url);
  const answer = async (text: string) => {
    const socket = connect(Number(port), '127.0.0.1');
    socket.write(text);
    const [head, body] = (await textOf(socket)).split('\r\n\r\n');
    return { status: Number(head!.split(' ')[1]), ...JSON.parse(body!) };
  };
  const type = 'invalid_request_error';
  expect(await answer('FOO BAR\r\n\r\n')).toMatchObject({ status: 400, error: { type, code: 'malformed_request' } });
  const long = `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`;
  expect(await answer(long)).toMatchObject({ status: 431, error: { type, code: 'headers_too_large' } });
});

describe('a client that keeps its end of a connection open', () => {
  const connected = (url: string) => {
    const { port, hostname: host } = new URL(url);
    return connect({ port: Number(port), host, allowHalfOpen: true }).on('error', () => undefined);
  };

  test("leaves the server's end closed", async () => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.once('data', () => answerMalformed(new Error('no request'), socket)); // as node's HTTP server calls it
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const socket = connected(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    socket.write('FOO BAR\r\n\r\n');
    let got = '';
    socket.on('data', (some) => {
      got += some;
    });
    await once(socket, 'end');
    expect(got).toMatch(/^HTTP\/1.1 400 /);
    const connections = promisify(server.getConnections.bind(server));
    await until(async () => (await connections()) === 0).finally(() => {
      socket.destroy();
      server.close();
    });
  });

  test('gets nothing into an answer by what is no request behind it', async () => {
    const socket = connected((await served({ maxCompletionTokens: 1e6 })).url);
    const body = JSON.stringify({ ...greedy, max_tokens: 1e6, stream: true });
    const head = `Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
    socket.write(`POST /v1/completions HTTP/1.1\r\n${head}\r\n\r\n${body}`);
    let got = '';
    socket.on('data', (some) => {
      if (got === '') socket.write('FOO BAR\r\n\r\n');
      got += some;
    });
    await until(() => socket.destroyed || socket.readableEnded);
    expect(got).toMatch(/^HTTP\/1.1 200 /);
    expect(got).not.toMatch(/malformed_request/);
    socket.destroy();
  });
});

test('the line is first in, first out, and has an end', async () => {
  const { post, url, metric } = await served({ maxConcurrency: 1, maxQueue: 2, maxCompletionTokens: 1e6 });
  const leave = new AbortController();
  const first = await post('/v1/completions', { ...greedy, max_tokens: 1e6, stream: true }, { signal: leave.signal });
  expect(first.status).toBe(200);
  const order: number[] = [];
  const waiting = [1, 2].map(async (i) => {
    const response = await post('/v1/completions', { ...greedy, max_tokens: 1 });
    order.push(i);
    return response.status;
  });
  await until(async () => (await metric('linattn_requests_waiting')) === 2);
  const refused = await post('/v1/completions', greedy);
  expect(refused.headers.get('retry-after')).toBe('1');
  expect(await errorOf(refused)).toMatchObject({ status: 429, code: 'queue_full', type: 'rate_limit_error' });
  expect((await post('/v1/completions', 'a body that is never read')).status).toBe(429);
  expect(await (await fetch(`${url}/health`)).json()).toEqual({ status: 'ok', model: 'test', running: 1, waiting: 2 });
  leave.abort();
  expect(await Promise.all(waiting)).toEqual([200, 200]);
  expect(order).toEqual([1, 2]);
});

test('metrics tell what happened, in the text format', async () => {
  const { post, url, metric } = await served();
  await post('/v1/completions', { ...greedy, max_tokens: 5 });
  await post('/v1/completions', { n: 3 });
  expect(await metric('linattn_prompt_tokens_total')).toBe(5);
  expect(await metric('linattn_completion_tokens_total')).toBe(5);
  expect(await metric('linattn_time_to_first_token_seconds_count')).toBe(1);
  expect(await metric('linattn_token_seconds_count')).toBe(4);
  expect(await metric('linattn_errors_total{code="unsupported_parameter"}')).toBe(1);
  expect(await metric('linattn_requests_total{route="/v1/completions",status="200"}')).toBe(1);
  const response = await fetch(`${url}/metrics`);
  expect(response.headers.get('content-type')).toContain('version=0.0.4');
  const lines = (await response.text()).trimEnd().split('\n');
  const series = /^[a-z_]+(\{([a-z_]+="[^"]*",?)*\})? ([0-9.e+-]+|\+Inf|NaN)$/;
  expect(lines.filter((line) => !line.startsWith('# ') && !series.test(line))).toEqual([]);
});
