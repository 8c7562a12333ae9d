// linattn serve as a process: dist/cli/main.js (npm run build) with a tiny model.
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { call } from '../support/cli';
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

test('help names the limits and the environment, not the key', async () => {
  child = spawn('true');
  const { out } = await call(['serve', '--help'], { env: {} });
  for (const flag of ['--host', '--api-key', '--max-queue', '--drain-seconds', 'LINATTN_API_KEY']) {
    expect(out).toContain(flag);
  }
});
