// Sessions over HTTP: what was read is not read again, and forks and saved states go on as if nothing had happened.
import { mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import files from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Sessions } from '../../lib/server/sessions';
import { type Served, serve, until } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

const folder = tinyModelFolder();
const stateFolder = mkdtempSync(path.join(tmpdir(), 'linattn-states-'));
let served: Served;
beforeEach(async () => {
  served = await serve({ stateFolder, maxSessions: 3 }, folder);
});
afterEach(() => served.close());
afterAll(() => {
  for (const one of [folder, stateFolder]) rmSync(one, { recursive: true });
});

const document = 'The keeper wrote one line each night. '.repeat(40);
const greedy = { temperature: 0, ignore_eos: true, max_tokens: 8 };
type Json = Record<string, unknown> & { id: string };
const json = async (response: Response | Promise<Response>) => (await (await response).json()) as Json;
const created = async () => (await json(served.post('/v1/sessions', {}))).id;
const complete = (body: object) => served.client.completions.create({ model: 'test', ...greedy, ...body } as never);
const textOf = (answer: Awaited<ReturnType<typeof complete>>) => answer.choices[0]!.text;
const alone = async (prompt: string) =>
  (await served.model.generate({ prompt, maxTokens: 8, temperature: 0, ignoreEos: true }).result).text;
const status = async (response: Promise<Response>) => {
  const { status } = await response;
  const { error } = (await (await response).json()) as { error?: { code: string } };
  return [status, error?.code];
};

test('goes on from where it stands; a fork goes on by itself', async () => {
  const session = await created();
  const read = await complete({ session, prompt: document, max_tokens: 0 });
  expect(textOf(read)).toBe('');
  const fork = (await json(served.post(`/v1/sessions/${session}/fork`, {}))).id;
  const [first, second] = await Promise.all([
    complete({ session, prompt: 'One' }),
    complete({ session: fork, prompt: 'Two' }),
  ]);
  expect([textOf(first), textOf(second)]).toEqual([await alone(`${document}One`), await alone(`${document}Two`)]);
  const tokens = document.length;
  expect(first.usage).toMatchObject({ prompt_tokens: tokens + 3, prompt_tokens_details: { cached_tokens: tokens } });
  expect(await json(fetch(`${served.url}/v1/sessions/${fork}`))).toMatchObject({ id: fork, object: 'session' });
  const more = await complete({ session, prompt: '' });
  expect(more.usage).toMatchObject({ prompt_tokens: tokens + 11 });
});

test('a chat reads what is new only', async () => {
  const session = await created();
  const messages = [{ role: 'user' as const, content: document }];
  const ask = () => served.client.chat.completions.create({ model: 'test', messages, session, ...greedy } as never);
  const first = await ask();
  messages.push({ role: 'assistant' as never, content: 'Yes.' }, { role: 'user', content: 'And then?' });
  const second = await ask();
  expect(second.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(first.usage!.prompt_tokens);
});

test('is saved as bytes and as a file, and restored', async () => {
  const session = await created();
  await complete({ session, prompt: document, max_tokens: 0 });
  const saved = await served.post(`/v1/sessions/${session}/save`, {});
  expect(saved.headers.get('content-type')).toBe('application/octet-stream');
  const bytes = new Uint8Array(await saved.arrayBuffer());
  const named = await json(served.post(`/v1/sessions/${session}/save`, { file: 'report.state', tokens: 'hash' }));
  expect(named).toMatchObject({ id: session, file: 'report.state', tokens: document.length });
  expect(readdirSync(stateFolder)).toEqual(['report.state']);
  const headers = { 'content-type': 'application/octet-stream' };
  const restored = [
    await json(served.post('/v1/sessions/restore', '', { body: bytes, headers })),
    await json(served.post('/v1/sessions/restore', { file: 'report.state' })),
  ];
  for (const { id, tokens } of restored) {
    expect(tokens).toBe(document.length);
    expect(textOf(await complete({ session: id, prompt: 'One' }))).toBe(await alone(`${document}One`));
  }
});

test('refuses what is not a state, not there, or not a plain name', async () => {
  const restore = (body: object) => status(served.post('/v1/sessions/restore', body));
  expect(await restore({ file: 'absent' })).toEqual([404, 'file_not_found']);
  for (const file of ['../x', '/etc/passwd', '.hidden', 'a/b', 'a\0b', '', '..']) {
    expect(await restore({ file })).toEqual([400, 'invalid_value']);
  }
  const headers = { 'content-type': 'application/octet-stream' };
  const bytes = (body: Uint8Array) => status(served.post('/v1/sessions/restore', '', { body, headers }));
  expect(await bytes(new Uint8Array(100))).toEqual([400, 'ERR_SNAPSHOT_CORRUPT']);
  headers['content-type'] += '; version=1';
  expect(await bytes(new Uint8Array(100))).toEqual([400, 'ERR_SNAPSHOT_CORRUPT']);
  const session = await created();
  const save = () => served.post(`/v1/sessions/${session}/save`, {});
  expect(await status(save())).toEqual([400, 'ERR_ARGUMENT']);
  await complete({ session, prompt: 'Hello', max_tokens: 0 });
  const whole = new Uint8Array(await (await save()).arrayBuffer());
  expect(await bytes(whole.subarray(0, whole.length - 1))).toEqual([400, 'ERR_SNAPSHOT_CORRUPT']);
  whole[whole.length >> 1]! ^= 1;
  expect(await bytes(whole)).toEqual([400, 'ERR_SNAPSHOT_CORRUPT']);
  for (const wrong of [{ state_dtype: 'int3' }, { tokens: 'none' }, { file: 5 }]) {
    const answer = await served.post(`/v1/sessions/${session}/save`, wrong);
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({ error: { code: 'invalid_value', param: Object.keys(wrong)[0] } });
  }
  expect(await served.metric('linattn_sessions')).toBe(1);
});

test('what lies in the folder and is no state is told by its name alone', async () => {
  mkdirSync(path.join(stateFolder, 'folder'));
  writeFileSync(path.join(stateFolder, 'notes'), 'x'.repeat(1000));
  const restore = async (file: string) => {
    const response = await served.post('/v1/sessions/restore', { file });
    const { error } = (await response.json()) as { error: { message: string } };
    return { ...error, status: response.status };
  };
  expect(await restore('folder')).toMatchObject({ status: 404, code: 'file_not_found', param: 'file' });
  const wrong = await restore('notes');
  expect(wrong).toMatchObject({ status: 400, code: 'ERR_SNAPSHOT_CORRUPT', param: 'file' });
  expect(wrong.message).toContain('notes');
  expect(wrong.message).not.toContain(stateFolder);
  const session = await created();
  await complete({ session, prompt: 'Hello', max_tokens: 0 });
  expect(await status(served.post(`/v1/sessions/${session}/save`, { file: 'folder' }))).toEqual([400, 'invalid_value']);
  for (const file of ['folder', 'notes']) rmSync(path.join(stateFolder, file), { recursive: true });
});

test('where the disk fails, the answer says why and the operator is told where', async () => {
  const told: unknown[] = [];
  const failing = await serve({ stateFolder, maxSessions: 3, onError: (error) => told.push(error) }, folder);
  const { id } = await json(failing.post('/v1/sessions', {}));
  await failing.client.completions.create({ model: 'test', session: id, prompt: 'Hello', ...greedy } as never);
  const file = 'report.state';
  const ask = async (url: string) => {
    const response = await failing.post(`/v1/sessions/${url}`, { file });
    return [response.status, await response.json()];
  };
  const failure = (reason: string) => {
    const message = `a file of the server failed: ${reason}`;
    return [500, { error: { message, type: 'server_error', param: null, code: 'ERR_FILE' } }];
  };
  for (const [errno, code, reason] of [
    [-28, 'ENOSPC', 'no space left on device'],
    [-13, 'EACCES', 'permission denied'],
  ] as const) {
    const error = Object.assign(new Error(`${code}: ${reason}, open '${stateFolder}'`), {
      errno,
      code,
      syscall: 'open',
    });
    const open = jest.spyOn(files, 'open').mockRejectedValue(error);
    expect(await ask(`${id}/save`)).toEqual(failure(`${reason} (${code})`));
    expect(await ask('restore')).toEqual(failure(`${reason} (${code})`));
    open.mockRestore();
  }
  renameSync(stateFolder, `${stateFolder}-away`);
  expect(await ask(`${id}/save`)).toEqual(failure('no such file or directory (ENOENT)'));
  renameSync(`${stateFolder}-away`, stateFolder);
  expect(told.map(String)).toEqual(told.map(() => expect.stringContaining(path.join(stateFolder, file))));
  expect(told).toHaveLength(5);
  await failing.close();
});

test('behind a body that is no state its connection serves on', async () => {
  const { hostname, port } = new URL(served.url);
  const socket = connect(Number(port), hostname);
  let answers = '';
  socket.on('data', (text) => {
    answers += text;
  });
  const length = 2 ** 24;
  const head = ['POST /v1/sessions/restore HTTP/1.1', `host: ${hostname}`, 'content-type: application/octet-stream'];
  socket.write(`${[...head, `content-length: ${length}`].join('\r\n')}\r\n\r\n`);
  socket.write(Buffer.alloc(length));
  socket.write(`GET /health HTTP/1.1\r\nhost: ${hostname}\r\n\r\n`);
  await until(() => answers.includes('"status":"ok"'), 10_000);
  expect(answers).toContain('HTTP/1.1 400 ');
  socket.destroy();
});

test('bytes are taken where a state is restored only', async () => {
  const headers = { 'content-type': 'application/octet-stream' };
  const session = await created();
  for (const url of ['completions', 'embeddings', 'sessions', `sessions/${session}/fork`, `sessions/${session}/save`]) {
    const answer = served.post(`/v1/${url}`, '', { body: new Uint8Array(100), headers });
    expect(await status(answer)).toEqual([415, 'unsupported_media_type']);
  }
});

test('a session that is made for a client that has gone is none', async () => {
  const sessions = new Sessions(served.model, 1, 1000);
  const gone = AbortSignal.abort(new Error('gone'));
  await expect(sessions.add(() => served.model.createSession(), gone)).rejects.toThrow('gone');
  expect(sessions.size).toBe(0);
  await sessions.add(() => served.model.createSession()); // its place is free
  await sessions.dispose();
});

test('a client that goes away while it sends a state is no bad state', async () => {
  const session = await created();
  await complete({ session, prompt: document, max_tokens: 0 });
  const state = Buffer.from(await (await served.post(`/v1/sessions/${session}/save`, {})).arrayBuffer());
  const { hostname, port } = new URL(served.url);
  const socket = connect(Number(port), hostname);
  const head = ['POST /v1/sessions/restore HTTP/1.1', `host: ${hostname}`, 'content-type: application/octet-stream'];
  socket.write(`${[...head, `content-length: ${state.length}`].join('\r\n')}\r\n\r\n`);
  socket.write(state.subarray(0, state.length >> 1));
  await until(async () => (await served.metric('linattn_requests_running')) === 1);
  socket.destroy();
  await until(async () => (await served.metric('linattn_requests_running')) === 0);
  expect(await served.metric('linattn_errors_total{code="client_closed_request"}')).toBe(1);
  expect(await served.metric('linattn_errors_total{code="ERR_SNAPSHOT_CORRUPT"}')).toBeNaN();
  expect(await served.metric('linattn_sessions')).toBe(1);
});

test('is one request at a time, of so many, and gone when deleted', async () => {
  const remove = (id: string) => fetch(`${served.url}/v1/sessions/${id}`, { method: 'DELETE' });
  const session = await created();
  const running = await served.post('/v1/completions', {
    ...{ ...greedy, session, prompt: 'Hello', max_tokens: 8000, stream: true },
  });
  await until(async () => (await served.metric('linattn_requests_running')) === 1);
  const ask = () => status(served.post('/v1/completions', { ...greedy, session, prompt: 'x' }));
  expect(await ask()).toEqual([409, 'session_busy']);
  expect(await json(remove(session))).toEqual({ id: session, object: 'session', deleted: true });
  expect(await running.text()).toContain('ERR_DISPOSED');
  expect(await ask()).toEqual([404, 'session_not_found']);
  expect((await remove(session)).status).toBe(404);
  await Promise.all([created(), created(), created()]);
  expect(await status(served.post('/v1/sessions', {}))).toEqual([429, 'too_many_sessions']);
});

test('is dropped when nobody uses it', async () => {
  const forgetful = await serve({ sessionTtlMs: 150 }, folder);
  expect((await forgetful.post('/v1/sessions', {})).status).toBe(200); // it is there
  await until(async () => (await forgetful.metric('linattn_sessions')) === 0);
  await forgetful.close();
});

test('without a folder there are no files of states', async () => {
  const plain = await serve({}, folder);
  const { id } = await json(plain.post('/v1/sessions', {}));
  expect(await status(plain.post(`/v1/sessions/${id}/save`, { file: 'x' }))).toEqual([400, 'no_state_folder']);
  expect(await status(plain.post('/v1/sessions/restore', { file: 'x' }))).toEqual([400, 'no_state_folder']);
  await plain.close();
});
