// linattn serve as a process: dist/cli/main.js (npm run build) with a tiny model.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { call } from '../support/cli';
import { describeWithRedis, startRedis } from '../support/redis-server';
import { tinyModelFolder } from '../support/tiny-model';

const main = join(__dirname, '..', '..', 'dist', 'cli', 'main.js');
const model = tinyModelFolder();
let child: ChildProcess;
afterEach(() => child.kill('SIGKILL'));
afterAll(() => rmSync(model, { recursive: true }));

/** Starts it and resolves with its address. */
async function serve(args: string[], env: Record<string, string> = {}): Promise<string> {
  child = spawn(process.execPath, [main, 'serve', '--port', '0', '--model', model, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await new Promise<string>((resolve) => {
    child.stdout!.setEncoding('utf8').once('data', resolve);
  });
  expect(line).toMatch(/^\S+ on http:\/\/127\.0\.0\.1:\d+\n$/);
  return line.trim().split(' ').at(-1)!;
}
const ended = () => new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
const ask = (url: string, max_tokens: number, key = '') =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify({
      prompt: 'Hello',
      max_tokens,
      stream: true,
      ignore_eos: true,
      temperature: 0,
      model: 'tiny',
    }),
  });

test('the folder for states is made, or the server does not start', async () => {
  const scratch = mkdtempSync(join(tmpdir(), 'linattn-serve-'));
  const folder = join(scratch, 'a', 'b');
  await serve(['--state-folder', folder]);
  expect(existsSync(folder)).toBe(true);
  child.kill('SIGKILL');
  writeFileSync(join(scratch, 'file'), '');
  const ran = await call(['serve', '--port', '0', '--model', model, '--state-folder', join(scratch, 'file', 'b')]);
  expect(ran.outcome).toEqual({ exitCode: 1 });
  expect(ran.err).toMatch(/--state-folder: ENOTDIR.*\(ERR_FILE\)/);
  rmSync(scratch, { recursive: true });
});

test('an address that is taken, or is none, is told in one line', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  child = spawn(process.execPath, [main, 'serve', '--port', String(port), '--model', model]);
  let err = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    err += text;
  });
  expect(await ended()).toEqual({ code: 1, signal: null });
  expect(err).toMatch(/^linattn: --host, --port: .*EADDRINUSE.* \(ERR_ARGUMENT\)\n$/);
  taken.close();
  for (const wrong of [
    ['--port', '65536'],
    ['--host', ''],
    ['--model-name', ''],
    ['--state-folder', ''],
    ['--drain-seconds', '3000000'],
  ]) {
    const ran = await call(['serve', ...wrong]);
    expect(ran.outcome).toEqual({ exitCode: 2 });
    expect(ran.err).toContain(wrong[0]);
  }
});

test('SIGTERM lets what runs end, then the signal ends the process', async () => {
  const url = await serve(['--model-name', 'tiny']);
  const running = await ask(url, 400);
  const end = ended();
  child.kill('SIGTERM');
  expect(await running.text()).toMatch(/"finish_reason":"length"[\s\S]*\[DONE\]\s*$/);
  expect(await end).toEqual({ code: null, signal: 'SIGTERM' });
});

test('what runs too long is aborted; a key from the environment is asked for', async () => {
  const url = await serve(['--model-name', 'tiny', '--drain-seconds', '0', '--max-completion-tokens', '100000000'], {
    LINATTN_API_KEY: 'sesame',
  });
  expect((await ask(url, 1)).status).toBe(401);
  const running = await ask(url, 1e8, 'sesame');
  const end = ended();
  child.kill('SIGINT');
  expect(await running.text()).toContain('"code":"draining"');
  expect(await end).toEqual({ code: null, signal: 'SIGINT' });
});

/** The same long prompt before and after a restart: tokens that were cached, and the metrics at the end. */
async function twiceCached(cache: string): Promise<{ cached: number[]; metrics: string }> {
  const prompt = Array.from({ length: 600 }, (_, i) => i % 200);
  const cached: number[] = [];
  let metrics = '';
  for (let start = 0; start < 2; start++) {
    const url = await serve(['--cache', cache]);
    for (let request = 0; request < 2; request++) {
      const response = await fetch(`${url}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt, max_tokens: 1 }),
      });
      const { usage } = (await response.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } };
      cached.push(usage.prompt_tokens_details.cached_tokens);
    }
    metrics = await (await fetch(`${url}/metrics`)).text();
    const end = ended();
    child.kill('SIGTERM');
    await end; // what is to be kept is in the store
  }
  return { cached, metrics };
}

test('--cache with a folder is there again after a restart, and metrics say what it did', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'linattn-cache-'));
  const { cached, metrics } = await twiceCached(folder);
  expect(cached).toEqual([0, 600, 600, 600]);
  const value = (name: string) =>
    Number(
      metrics
        .split('\n')
        .find((line) => line.startsWith(`${name} `))
        ?.split(' ')[1],
    );
  expect(value('linattn_prefix_cache_hits_total')).toBe(2);
  expect(value('linattn_prefix_cache_misses_total')).toBe(0);
  expect(value('linattn_prefix_cache_tokens_total')).toBe(1200);
  expect(value('linattn_prefix_cache_states{tier="device"}')).toBe(1);
  expect(value('linattn_prefix_cache_bytes{tier="device"}')).toBeGreaterThan(0);
  expect(value('linattn_prefix_cache_bytes{tier="host"}')).toBe(0);
  expect(value('linattn_prefix_cache_evictions_total{tier="device"}')).toBe(0);
  expect(value('linattn_prefix_cache_store_bytes_total{direction="read"}')).toBeGreaterThan(0);
  expect(value('linattn_prefix_cache_store_errors_total')).toBe(0);
  rmSync(folder, { recursive: true });
});

test('--cache memory does not outlive the server', async () => {
  expect((await twiceCached('memory')).cached).toEqual([0, 600, 0, 600]);
});

describeWithRedis('serve with Redis', () => {
  test('--cache redis://... is there again after a restart', async () => {
    const redis = await startRedis();
    expect((await twiceCached(redis.url)).cached).toEqual([0, 600, 600, 600]);
    await redis.stop();
  });
});

test.each(['', 'two words', 'schlüssel', 'key\n'])(
  'the key %j, which no client could send, is a usage error',
  async (key) => {
    child = spawn('true');
    const { outcome, err } = await call(['serve', '--api-key', key]);
    expect(outcome).toEqual({ exitCode: 2 });
    expect(err).toContain('--api-key');
  },
);

test('an empty key of the environment is none', async () => {
  const url = await serve(['--model-name', 'tiny'], { LINATTN_API_KEY: '' });
  expect((await ask(url, 1)).status).toBe(200);
});

test('help names the limits and the environment, not the key', async () => {
  child = spawn('true');
  const { out } = await call(['serve', '--help'], { env: {} });
  for (const flag of ['--host', '--api-key', '--max-queue', '--drain-seconds', 'LINATTN_API_KEY']) {
    expect(out).toContain(flag);
  }
});
