// The command line as a process: dist/cli/main.js (npm run build) with a tiny model.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tinyModelFolder } from '../support/tiny-model';

const root = join(__dirname, '..', '..');
const main = join(root, 'dist', 'cli', 'main.js');
let model: string;
beforeAll(() => {
  model = tinyModelFolder();
});
afterAll(() => rmSync(model, { recursive: true }));

const linattn = (args: string[], input = '') =>
  spawnSync(process.execPath, [main, ...args], {
    input,
    encoding: 'utf8',
    env: { ...process.env, LINATTN_MODEL: model },
  });
const json = (args: string[], input?: string) => {
  const { status, stdout, stderr } = linattn([...args, '--json'], input);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout);
};
const greedy = ['-t', '0', '--ignore-eos'];

test('generates the same text as text, as an object and as events', () => {
  const args = ['generate', '-p', 'Hello', '-n', '8', ...greedy];
  const text = linattn(args);
  expect(text).toMatchObject({ status: 0, stderr: '' });
  const result = json(args);
  expect(result).toMatchObject({
    text: text.stdout,
    finishReason: 'length',
    usage: { promptTokens: 5, completionTokens: 8 },
  });
  expect(result.tokens).toHaveLength(8);
  const events = linattn([...args, '--jsonl'])
    .stdout.trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(events.at(-1)).toMatchObject({ event: 'result', text: result.text, tokens: result.tokens });
  const tokens = events.filter(({ event }) => event === 'token');
  expect(tokens.map(({ token }) => token)).toEqual(result.tokens);
  expect(tokens.map((chunk) => chunk.text).join('')).toBe(result.text);
});

test('the same seed gives the same text', () => {
  const run = (seed: string) => json(['generate', '-p', 'Hello', '-n', '20', '-t', '1', '--seed', seed]).tokens;
  expect(run('7')).toEqual(run('7'));
  expect(run('7')).not.toEqual(run('8'));
});

test('a document on standard input goes before the prompt', () => {
  const { usage } = json(['generate', '-p', 'In short:', '-n', '1', ...greedy], 'A long document.\n');
  expect(usage.promptTokens).toBe('A long document.\n\nIn short:'.length);
});

test('--max-tokens 0 only reads the prompt; --chat applies the template', () => {
  const { text, tokens, usage } = json(['generate', '--chat', '-p', 'Hi', '-n', '0']);
  expect({ text, tokens }).toEqual({ text: '', tokens: [] });
  expect(usage).toMatchObject({ promptTokens: 'user: Hi\nassistant: '.length, completionTokens: 0 });
});

test('--stop ends the text before it', () => {
  const args = ['generate', '-p', 'Hello', '-n', '12', ...greedy];
  const { text } = json(args);
  const stop = text.slice(3, 5);
  expect(json([...args, '--stop', stop])).toMatchObject({
    text: text.slice(0, text.indexOf(stop)),
    finishReason: 'stop',
  });
});

test.each([
  ['a missing model', ['-p', 'x', '-m', '/nowhere'], 'ERR_FILE', /nowhere/],
  ['a missing prompt file', ['-f', '/nowhere.txt'], 'ERR_FILE', /nowhere\.txt .*ENOENT/],
  ['a missing device', ['-p', 'x', '--device', 'cuda:77'], 'ERR_DEVICE', /cuda:77/],
])('%s is exit code 1 and an error object', (_, args, code, message) => {
  const { status, stdout, stderr } = linattn(['generate', ...args, '--json']);
  expect(status).toBe(1);
  expect(JSON.parse(stdout)).toEqual({ error: { code, message: expect.stringMatching(message) } });
  expect(stderr).toContain(code);
});

test('bench says that there is no model before it measures ops', () => {
  const args = [main, 'bench', '-m', '/nowhere', '--json'];
  const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 });
  expect(status).toBe(1);
  expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'ERR_FILE' } });
}, 60_000);

test('a usage error is exit code 2', () => {
  expect(linattn(['generate', '--prmpt', 'x'])).toMatchObject({ status: 2, stdout: '' });
});

test('a damaged tokenizer.json is ERR_TOKENIZER', () => {
  const broken = tinyModelFolder();
  writeFileSync(join(broken, 'tokenizer.json'), '{');
  expect(JSON.parse(linattn(['generate', '-p', 'x', '-m', broken, '--json']).stdout)).toMatchObject({
    error: { code: 'ERR_TOKENIZER' },
  });
  rmSync(broken, { recursive: true });
});

test('info lists the cpu and the model', () => {
  expect(json(['info'])).toMatchObject({
    devices: expect.arrayContaining([expect.objectContaining({ name: 'cpu' })]),
    model: { folder: model, family: 'qwen3_5', vocabularySize: 256 },
  });
});

test('tokenize counts bytes', () => {
  expect(linattn(['tokenize', '--count', '-p', 'f\u00fcr'])).toMatchObject({ status: 0, stdout: '4\n' });
});

test('chat answers each line', () => {
  const { status, stdout } = linattn(['chat', '-n', '3', ...greedy], 'Hello\nAgain\n');
  expect(status).toBe(0);
  expect(stdout.split('\n').length).toBeGreaterThanOrEqual(3);
});

test('help and version work without a model, and quickly fail nowhere', () => {
  expect(execFileSync(process.execPath, [main, '--help'], { encoding: 'utf8' })).toContain('generate');
});

describe('where the addon does not load', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'linattn-bare-'));
    cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
    cpSync(join(root, 'package.json'), join(folder, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir');
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const bare = (...args: string[]) =>
    spawnSync(process.execPath, [join(folder, 'dist', 'cli', 'main.js'), ...args], { input: '', encoding: 'utf8' });

  test.each([[['--version']], [['--help']], [['bench', '--help']], [['generate', '--help']]])('%j works', (args) => {
    expect(bare(...args)).toMatchObject({ status: 0, stdout: expect.stringMatching(/\S/), stderr: '' });
  });

  test.each([[['generate', '-p', 'x']], [['bench']], [['info']], [['tokenize', '-p', 'x']]])(
    '%j says so in one line',
    (args) => {
      const { status, stdout, stderr } = bare(...args);
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
      expect(stderr).toMatch(/^linattn: the native addon did not load from .*npm run build.*\(ERR_ADDON\)\n$/);
    },
  );

  test.each(['--json', '--jsonl'])('%s gives an error object', (flag) => {
    const { status, stdout } = bare('generate', '-p', 'x', flag);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toEqual({ error: { code: 'ERR_ADDON', message: expect.stringContaining(folder) } });
  });

  test('usage errors are still those', () => {
    expect(bare('bench', '--opp', 'x')).toMatchObject({ status: 2, stdout: '' });
  });
});

describe('in a shell', () => {
  const shell = (script: string) =>
    spawnSync('bash', ['-c', script], {
      encoding: 'utf8',
      env: { ...process.env, LINATTN_MODEL: model, NODE: process.execPath, MAIN: main },
    });

  test('a reader that goes away ends it quietly', () => {
    const { stdout, stderr } = shell(
      '"$NODE" "$MAIN" generate -p Hello -n 5000 --ignore-eos -t 1 --jsonl < /dev/null | head -c 10 > /dev/null; echo $PIPESTATUS',
    );
    expect({ stdout, stderr }).toEqual({ stdout: '0\n', stderr: '' });
  });

  test('nobody reads what goes to stderr', () => {
    const { stdout } = shell(
      '"$NODE" "$MAIN" generate -p Hello -n 3 --verbose < /dev/null 2>&1 > /dev/null | true; echo $PIPESTATUS',
    );
    expect(stdout).toBe('0\n');
  });

  test.each([
    ['INT', 130],
    ['TERM', 143],
  ])('SIG%s is exit code %i', (signal, code) => {
    // A background process of a shell without job control ignores SIGINT, so it runs in the foreground of a subshell; the
    // signal comes when it has begun to write.
    const begun = 'for i in {1..600}; do [ -s "$PLACE/out" ] && break; sleep 0.05; done';
    const run = 'exec "$NODE" "$MAIN" generate -p Hello -n 1000000 --ignore-eos -t 1 < /dev/null > "$PLACE/out"';
    const script = `(${begun}; kill -${signal} $(cat "$PLACE/pid")) & bash -c 'echo $$ > "$PLACE/pid"; ${run}'; echo $?`;
    expect(shell(`PLACE=$(mktemp -d); export PLACE; ${script}; rm -r "$PLACE"`).stdout).toBe(`${code}\n`);
  });
});

/** Interrupts it in the middle of a prompt. */
async function interrupted(): Promise<{ ms: number; last: unknown; ended: unknown }> {
  const child = spawn(process.execPath, [main, 'generate', '--jsonl', '-n', '5'], {
    env: { ...process.env, LINATTN_MODEL: model },
  });
  child.stdin.end('The keeper wrote one line each night. '.repeat(5000));
  let out = '';
  let interruptedAt = 0;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
    if (interruptedAt === 0 && /"event":"prefill","done":[1-9]/.test(out)) {
      interruptedAt = performance.now();
      child.kill('SIGINT');
    }
  });
  const ended = await new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  const ms = performance.now() - interruptedAt;
  return { ms, ended, last: JSON.parse(out.trimEnd().split('\n').at(-1)!) };
}

test('an interrupt in the middle of the prompt gives valid JSON, within a second in one of three runs', async () => {
  const times: number[] = [];
  while (times.length < 3 && !times.some((ms) => ms < 1000)) {
    const { ms, last, ended } = await interrupted();
    expect(ended).toEqual({ code: null, signal: 'SIGINT' });
    expect(last).toMatchObject({ event: 'result', text: '', finishReason: 'cancelled' });
    times.push(ms);
  }
  expect(Math.min(...times)).toBeLessThan(1000);
});

test('a state that one process saves goes on in another', () => {
  const file = join(model, 'saved.state');
  const whole = json(['generate', '-p', 'Hello\n\nworld', '-n', '12', ...greedy]);
  expect(json(['generate', '-p', 'Hello', '-n', '0', '--save-state', file]).tokens).toEqual([]);
  const rest = json(['generate', '--state', file, '-p', 'world', '-n', '12', ...greedy]);
  expect(rest.tokens).toEqual(whole.tokens);
  expect(rest.usage).toMatchObject({ promptTokens: 12, cachedTokens: 5 });
  const missing = linattn(['generate', '--state', join(model, 'absent'), '-p', 'a', '--json']);
  expect(missing.status).toBe(1);
  expect(JSON.parse(missing.stdout)).toMatchObject({ error: { code: 'ERR_FILE' } });
});
