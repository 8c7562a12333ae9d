// Many clients at once, some of which leave, fall silent or send rubbish: every answer is right, nothing is stuck, memory
// is flat. LINATTN_LOAD_CLIENTS and LINATTN_LOAD_SECONDS make it larger: 200 and 300 are what the server must bear.
import { type ChildProcess, spawn } from 'node:child_process';
import { Agent, type ClientRequest, type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import path from 'node:path';
import { load } from '../../lib/generation/load';
import { seeded } from '../support/arrays';

const clients = Number(process.env.LINATTN_LOAD_CLIENTS ?? 200);
const seconds = Number(process.env.LINATTN_LOAD_SECONDS ?? 30);
const stuckMs = 300_000;
/** Memory is not flat when its median in the last quarter is above that of the second by more than this. */
const growthBytes = 24 * 2 ** 20;

const main = path.join(__dirname, '..', '..', 'dist', 'cli', 'main.js');
const agent = new Agent({ keepAlive: true, maxSockets: Number.POSITIVE_INFINITY });
let child: ChildProcess;
let port = 0;

interface Asked {
  readonly prompt: string;
  readonly max_tokens: number;
  readonly temperature: number;
  readonly seed: number;
}
const asked: readonly Asked[] = Array.from({ length: 24 }, (_, i) => ({
  prompt: `Chapter ${i}. The ${['captain', 'teacher', 'painter', 'child'][i % 4]} `.repeat(1 + (i % 6) * 9),
  max_tokens: 5 + ((7 * i) % 40),
  temperature: i % 3 === 0 ? 0 : 0.9,
  seed: i,
}));
let alone: string[];

beforeAll(async () => {
  const model = await load({ maxSequences: 1 });
  alone = [];
  for (const { prompt, max_tokens, temperature, seed } of asked) {
    alone.push((await model.generate({ prompt, maxTokens: max_tokens, temperature, seed }).result).text);
  }
  await model.dispose();
  child = spawn(process.execPath, [main, 'serve', '--port', '0', '--max-queue', String(2 * clients)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await new Promise<string>((resolve) => {
    child.stdout!.setEncoding('utf8').once('data', resolve);
  });
  port = Number(/:(\d+)\n$/.exec(line)![1]);
});
afterAll(() => {
  agent.destroy();
  child.kill('SIGKILL');
});

function send(method: string, url: string, body = ''): ClientRequest {
  const headers = body === '' ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  const sent = request({ port, method, path: url, headers, agent });
  sent.end(body);
  return sent;
}
const response = (sent: ClientRequest) =>
  new Promise<IncomingMessage>((resolve, reject) => {
    sent.on('response', resolve).on('error', reject);
  });
async function textOf(message: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of message.setEncoding('utf8')) text += chunk;
  return text;
}
async function metrics(): Promise<Record<string, number>> {
  const text = await textOf(await response(send('GET', '/metrics')));
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]),
  );
}

const latencies: Record<'first token' | 'between tokens' | 'answer', number[]> = {
  'first token': [],
  'between tokens': [],
  answer: [],
};
const counts: Record<string, number> = {};
const count = (what: string) => {
  counts[what] = (counts[what] ?? 0) + 1;
};

/** Streams an answer; leaves after `most` pieces of text. Resolves with the text. */
async function stream(i: number, most: number): Promise<string> {
  const started = performance.now();
  const sent = send('POST', '/v1/completions', JSON.stringify({ ...asked[i], stream: true }));
  const stuck = setTimeout(() => sent.destroy(new Error(`stuck for ${stuckMs} ms`)), stuckMs);
  try {
    const message = await response(sent);
    if (message.statusCode !== 200) throw new Error(`status ${message.statusCode}: ${await textOf(message)}`);
    let [text, rest, pieces, last] = ['', '', 0, started];
    for await (const chunk of message.setEncoding('utf8')) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      for (const line of lines.filter((one) => one.startsWith('data: {'))) {
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Error(event.error.message);
        const now = performance.now();
        latencies[pieces === 0 ? 'first token' : 'between tokens'].push(now - last);
        last = now;
        text += event.choices[0].text;
        if (++pieces > most) return text; // leaving the loop destroys the connection
      }
    }
    latencies.answer.push(performance.now() - started);
    return text;
  } finally {
    clearTimeout(stuck);
  }
}

/** Goes away before there is an answer. */
async function leave(i: number, afterMs: number): Promise<void> {
  const sent = send('POST', '/v1/completions', JSON.stringify({ ...asked[i], stream: i % 2 === 0 }));
  sent.on('error', () => undefined).on('response', (message) => message.on('error', () => undefined).resume());
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  sent.destroy();
}

const rubbish = ['', '{', '[]', '{"prompt": 7}', '{"prompt":"x","max_tokens":-3}', '\0\xff', '{"prompt":"x","n":9}'];

async function spoil(kind: number): Promise<void> {
  if (kind < rubbish.length) {
    const message = await response(send('POST', '/v1/completions', rubbish[kind]));
    await textOf(message);
    expect([400, 415]).toContain(message.statusCode);
    return;
  }
  // Half a request, or no HTTP at all, and then nothing more.
  const socket = connect(port, '127.0.0.1').on('error', () => undefined);
  const head = 'POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n';
  socket.write(kind % 2 === 0 ? `${head}Content-Length: 1000\r\n\r\n{"prompt": "` : 'HELO server\r\n\r\n');
  await new Promise((resolve) => setTimeout(resolve, 20));
  socket.destroy();
}

async function client(number: number, until: number): Promise<void> {
  const random = seeded(number);
  while (performance.now() < until) {
    const i = random.int(asked.length);
    const what = random.int(10);
    if (what < 7) {
      expect(await stream(i, Number.POSITIVE_INFINITY)).toBe(alone[i]);
      count('answered');
    } else if (what === 7) {
      const text = await stream(i, random.int(asked[i]!.max_tokens));
      expect(alone[i]!.startsWith(text)).toBe(true);
      count('left in the middle');
    } else if (what === 8) {
      await leave(i, random.int(400));
      count('left early');
    } else {
      await spoil(random.int(rubbish.length + 2));
      count('rubbish');
    }
  }
}

const sorted = (values: readonly number[]) => Float64Array.from(values).sort();
const quantile = (values: readonly number[], share: number) => sorted(values)[Math.floor(share * (values.length - 1))]!;

test(`${clients} clients for ${seconds} seconds`, async () => {
  const resident: number[] = [];
  const sampler = setInterval(async () => {
    resident.push((await metrics()).process_resident_memory_bytes!);
  }, 500);
  const until = performance.now() + seconds * 1000;
  try {
    await Promise.all(Array.from({ length: clients }, (_, number) => client(number, until)));
  } finally {
    clearInterval(sampler);
  }
  const end = performance.now() + 60_000;
  let last = await metrics();
  while (last.linattn_requests_running! + last.linattn_requests_waiting! > 0 && performance.now() < end) {
    last = await metrics();
  }
  const perSecond = Math.round(last.linattn_completion_tokens_total! / seconds);
  const lines = Object.entries(latencies).map(([name, values]) => {
    const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => quantile(values, share).toFixed(1));
    return `${name}: p50 ${p50} ms, p90 ${p90} ms, p99 ${p99} ms, of ${values.length}`;
  });
  const quarter = Math.floor(resident.length / 4);
  const [early, late] = [1, 3].map((q) => quantile(resident.slice(q * quarter, (q + 1) * quarter), 0.5)) as [
    number,
    number,
  ];
  const memory = [early, late].map((value) => `${(value / 2 ** 20).toFixed(0)} MiB`).join(', then ');
  console.log(
    [JSON.stringify(counts), ...lines, `${perSecond} tokens/s of finished answers`, `memory ${memory}`].join('\n'),
  );
  expect(last).toMatchObject({ linattn_requests_running: 0, linattn_requests_waiting: 0 });
  expect(Object.keys(counts)).toHaveLength(4);
  expect(Object.keys(last).filter((name) => /status="5|internal_error/.test(name))).toEqual([]);
  expect(late - early).toBeLessThan(growthBytes);
});
