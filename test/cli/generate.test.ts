// linattn generate: what goes to stdout and stderr, how it ends, and what the model is asked.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LinattnError } from '../../lib/errors';
import { call, fakeModel, timed, usage } from '../support/cli';

const tokens = [100, 101];
const ok = { exitCode: 0 };

test('text goes to stdout as it is, without a newline, and nothing to stderr', async () => {
  const model = fakeModel(['Hel', 'lo']);
  expect(await call(['generate', '-p', 'Say'], { model })).toEqual({ outcome: ok, out: 'Hello', err: '' });
  expect(model.asked).toMatchObject([{ prompt: 'Say', maxTokens: 512 }]);
  expect(model.disposed.count).toBe(1);
});

test('a terminal gets a newline at the end, and a summary on stderr', async () => {
  const { out, err } = await call(['generate', '-p', 'Say', '--no-progress', '--chat'], {
    model: fakeModel(['Hi']),
    terminals: ['stdin', 'stdout', 'stderr'],
  });
  expect(out).toBe('Hi\n');
  expect(err).toMatch(/^prompt 7 tokens \(2 cached\) in .*; text 2 tokens in .* 250\.0 tokens\/s; state 18\.0 MiB\n$/);
});

test('--quiet leaves stderr empty, --verbose writes the summary anywhere', async () => {
  const model = fakeModel(['Hi']);
  expect((await call(['generate', '-p', 'a', '-q'], { model, terminals: ['stdin', 'stderr'] })).err).toBe('');
  expect((await call(['generate', '-p', 'a', '--verbose'], { model })).err).toContain('250.0 tokens/s');
});

test('a terminal sees progress of tokenizing and prefill', async () => {
  const { err } = await call(['generate', '-p', 'a'], { model: fakeModel(['Hi']), terminals: ['stdin', 'stderr'] });
  expect(err).toContain('tokenize [');
  expect(err).toContain('prefill [');
  expect(err).toContain('7/7');
});

test('--json is one object', async () => {
  const { out } = await call(['generate', '-p', 'a', '--json'], { model: fakeModel(['Hel', 'lo']) });
  expect(JSON.parse(out)).toEqual({ text: 'Hello', tokens, finishReason: 'length', usage: timed });
  expect(out.endsWith('}\n')).toBe(true);
});

test('the times count the tokenizing that the command itself does', async () => {
  const model = fakeModel(['a']);
  model.tokenizer.encode = () => new Promise((resolve) => setTimeout(() => resolve(Int32Array.of(1)), 60));
  const { tokenizeMs, timeToFirstTokenMs } = JSON.parse(
    (await call(['generate', '-p', 'a', '--json'], { model })).out,
  ).usage;
  expect(tokenizeMs).toBeGreaterThan(usage.tokenizeMs + 50);
  expect(timeToFirstTokenMs).toBeGreaterThan(usage.timeToFirstTokenMs + 50);
});

test('--jsonl is a line an event, the result last', async () => {
  const { out } = await call(['generate', '-p', 'a', '--jsonl'], { model: fakeModel(['Hel', 'lo']) });
  expect(
    out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toEqual([
    { event: 'prefill', done: 7, total: 7, cached: 2 },
    { event: 'token', text: 'Hel', token: 100, logprob: 0 },
    { event: 'token', text: 'lo', token: 101, logprob: -1 },
    { event: 'result', text: 'Hello', tokens, finishReason: 'length', usage: timed },
  ]);
});

test('--echo puts the prompt before the text', async () => {
  expect((await call(['generate', '-p', 'Say: ', '--echo'], { model: fakeModel(['Hi']) })).out).toBe('Say: Hi');
  const { out } = await call(['generate', '-p', 'Say: ', '--echo', '--json'], { model: fakeModel(['Hi']) });
  expect(JSON.parse(out).text).toBe('Say: Hi');
});

test('flags become options of load and generate', async () => {
  const model = fakeModel(['a']);
  const flags =
    '-m here --device cuda:1 --dtype int8 --threads 3 -n 9 -t 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 --repetition-penalty 1.1 --seed 5 --ignore-eos';
  await call(['generate', '-p', 'x', ...flags.split(' '), '--stop', 'a\\nb', '--stop', '\\\\n'], { model });
  expect(model.loaded).toMatchObject([{ model: 'here', device: 'cuda:1', dtype: 'int8', threads: 3 }]);
  expect(model.asked).toMatchObject([
    {
      ...{ maxTokens: 9, temperature: 0.5, topK: 4, topP: 0.9, minP: 0.1, repetitionPenalty: 1.1, seed: 5 },
      ...{ ignoreEos: true, stop: ['a\nb', '\\n'] },
    },
  ]);
});

test('what is not given is left to the model', async () => {
  const model = fakeModel(['a']);
  await call(['generate', '-p', 'x'], { model });
  expect(Object.keys(model.asked[0]!).sort()).toEqual(['maxTokens', 'onPrefillProgress', 'prompt']);
  expect(Object.keys(model.loaded[0]!).sort()).toEqual(['device', 'dtype', 'onProgress', 'signal']);
});

describe('environment', () => {
  const names = { LINATTN_MODEL: 'from-env', LINATTN_DEVICE: 'cpu', LINATTN_THREADS: '2' };
  beforeEach(() => Object.assign(process.env, names));
  afterEach(() => {
    for (const name of Object.keys(names)) delete process.env[name];
  });

  test('stands behind the flags', async () => {
    const model = fakeModel(['a']);
    await call(['generate', '-p', 'x', '--threads', '4'], { model });
    expect(model.loaded).toMatchObject([{ model: 'from-env', device: 'cpu', threads: 4 }]);
  });

  test('a wrong value is a usage error', async () => {
    process.env.LINATTN_THREADS = 'many';
    const { outcome, err } = await call(['generate', '-p', 'x'], { model: fakeModel(['a']) });
    expect(outcome).toEqual({ exitCode: 2 });
    expect(err).toContain('LINATTN_THREADS');
  });
});

describe('prompt', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'linattn-cli-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const asked = async (args: string[], stdin?: string) => {
    const model = fakeModel(['a']);
    const piped = stdin === undefined ? {} : { stdin, terminals: [] };
    const { outcome, err } = await call(['generate', ...args], { model, ...piped });
    expect({ outcome, err }).toEqual({ outcome: ok, err: '' });
    return model.asked[0];
  };

  test.each([
    ['one line', 'one line\n\n?'],
    ['one line\n', 'one line\n\n?'],
    ['one line\n\n', 'one line\n\n?'],
    ['', '?'],
  ])('the document %j on standard input goes before -p', async (document, prompt) => {
    expect(await asked(['-p', '?'], document)).toMatchObject({ prompt });
  });

  test('standard input alone, a file alone, a file before -p, - for standard input', async () => {
    expect(await asked([], 'all of it\n')).toMatchObject({ prompt: 'all of it\n' });
    const path = file('a.txt', '\ufeffin the file');
    expect(await asked(['-f', path], 'not read')).toMatchObject({ prompt: 'in the file' });
    expect(await asked(['--prompt-file', path, '-p', '?'])).toMatchObject({ prompt: 'in the file\n\n?' });
    expect(await asked(['-f', '-'], 'piped')).toMatchObject({ prompt: 'piped' });
  });

  test('--chat and --system make it messages', async () => {
    const user = { role: 'user', content: 'Hi' };
    expect(await asked(['-p', 'Hi', '--chat'])).toMatchObject({ messages: [user] });
    expect(await asked(['-p', 'Hi', '--system', 'Be brief'])).toMatchObject({
      messages: [{ role: 'system', content: 'Be brief' }, user],
    });
  });

  test('a model with a template gets a hint on a terminal, unless --chat or --quiet', async () => {
    const options = { model: fakeModel(['a']), terminals: ['stdin', 'stderr'] } as const;
    expect((await call(['generate', '-p', 'a'], options)).err).toContain('--chat applies it');
    expect((await call(['generate', '-p', 'a', '--chat'], options)).err).not.toContain('hint');
  });

  test('a terminal as standard input and no prompt is a usage error, never a wait', async () => {
    const { outcome, err } = await call(['generate'], { model: fakeModel(['a']) });
    expect(outcome).toEqual({ exitCode: 2 });
    expect(err).toContain('no prompt');
    expect((await call(['generate'], { model: fakeModel(['a']), terminals: [] })).outcome).toEqual({ exitCode: 2 });
  });

  test.each([
    ['missing', () => join(folder, 'none.txt'), /none\.txt must be a readable file, got ENOENT/],
    ['a folder', () => folder, /must be a readable file, got EISDIR/],
    ['not UTF-8', () => file('latin.txt', Uint8Array.of(0x61, 0xe9, 0x62)), /latin\.txt must be UTF-8/],
  ])('a file that is %s is ERR_FILE', async (_, path, message) => {
    const { outcome, out, err } = await call(['generate', '--json', '-f', path()], { model: fakeModel(['a']) });
    expect(outcome).toEqual({ exitCode: 1 });
    expect(JSON.parse(out)).toEqual({ error: { code: 'ERR_FILE', message: expect.stringMatching(message) } });
    expect(err).toMatch(/^linattn: prompt: .*\(ERR_FILE\)\n$/);
  });
});

describe('errors', () => {
  const failing = () =>
    fakeModel(['Hel', 'lo'], (i) => {
      if (i === 1) throw new LinattnError('ERR_OUT_OF_MEMORY', 'generate: no memory');
    });

  test('are a line on stderr and exit code 1; text that came before stays', async () => {
    const model = failing();
    const { outcome, out, err } = await call(['generate', '-p', 'a'], { model });
    expect({ outcome, out, err }).toEqual({
      outcome: { exitCode: 1 },
      out: 'Hel',
      err: 'linattn: generate: no memory (ERR_OUT_OF_MEMORY)\n',
    });
    expect(model.disposed.count).toBe(1);
  });

  test.each(['--json', '--jsonl'])('under %s are the last line of stdout', async (flag) => {
    const { outcome, out } = await call(['generate', '-p', 'a', flag], { model: failing() });
    expect(outcome).toEqual({ exitCode: 1 });
    expect(JSON.parse(out.trimEnd().split('\n').at(-1)!)).toEqual({
      error: { code: 'ERR_OUT_OF_MEMORY', message: 'generate: no memory' },
    });
  });

  test('--verbose shows where they come from', async () => {
    expect((await call(['generate', '-p', 'a', '--verbose'])).err).toMatch(/load: no such model[\s\S]+ {4}at /);
  });
});
