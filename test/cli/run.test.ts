// The command line as a whole: help, version, usage errors, the other commands.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Interrupts } from '../../lib/cli/signals';
import { loadTokenizer } from '../../lib/tokenizer/tokenizer';
import { call, fakeModel } from '../support/cli';
import { goldenFolder } from '../support/tiny-tokenizers';

const { version } = JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8'));

test.each(['-V', '--version'])('%s', async (flag) => {
  expect(await call([flag])).toEqual({ outcome: { exitCode: 0 }, out: `${version}\n`, err: '' });
});

test('--help names commands and environment, and each command has its own', async () => {
  const { outcome, out } = await call(['--help']);
  expect(outcome).toEqual({ exitCode: 0 });
  for (const name of ['generate', 'chat', 'info', 'tokenize', 'LINATTN_MODEL', 'LINATTN_CPU'])
    expect(out).toContain(name);
  for (const name of ['generate', 'chat', 'info', 'tokenize']) {
    const help = await call([name, '--help']);
    expect(help.outcome).toEqual({ exitCode: 0 });
    expect(help.out).toContain(`linattn ${name}`);
  }
  expect((await call(['generate', '--help'])).out).toMatch(/Examples:[\s\S]+default: 512|default: 512[\s\S]+Examples:/);
});

const usageErrors: [string, string[], string][] = [
  ['no command', [], 'Usage: linattn'],
  ['an unknown command', ['genrate'], 'Did you mean generate?'],
  ['an unknown flag', ['generate', '--max-token', '3'], 'Did you mean --max-tokens?'],
  ['a flag without its value', ['generate', '--prompt'], 'argument missing'],
  ['a word too many', ['generate', 'word', '-p', 'x'], 'too many arguments'],
  ['a number that is none', ['generate', '-p', 'x', '-n', '1.5'], 'must be a whole number'],
  ['a number out of range', ['generate', '-p', 'x', '--top-p', '1.5'], 'must be a number from 0 to 1'],
  ['an empty stop string', ['generate', '-p', 'x', '--stop', ''], 'must not be empty'],
  ['an unknown device', ['generate', '-p', 'x', '--device', 'gpu'], 'must be auto, cpu, cuda or cuda:N'],
  ['an unknown dtype', ['generate', '-p', 'x', '--dtype', 'int4'], 'Allowed choices'],
  ['both --json and --jsonl', ['generate', '-p', 'x', '--json', '--jsonl'], 'exclude each other'],
];

test.each(usageErrors)('%s is a usage error', async (_, args, message) => {
  const { outcome, out, err } = await call(args, { model: fakeModel(['a']) });
  expect(outcome).toEqual({ exitCode: 2 });
  if (!args.includes('--json')) expect(out).toBe('');
  expect(err).toContain(message);
});

test.each(['--json', '--jsonl'])('under %s a usage error is an object', async (flag) => {
  for (const [, [name, ...args], message] of usageErrors.slice(1)) {
    const { outcome, out } = await call([name!, flag, ...args], { model: fakeModel(['a']) });
    expect(outcome).toEqual({ exitCode: 2 });
    expect(JSON.parse(out)).toEqual({ error: { code: 'ERR_ARGUMENT', message: expect.stringMatching(/^(?!error:)/) } });
    expect(JSON.parse(out).error.message).toContain(message);
  }
});

test.each([
  ['no prompt', []],
  ['an unknown flag, --json before it', ['--json', '--prmpt', 'x']],
])('%s is one too', async (_, args) => {
  const { outcome, out } = await call(['generate', ...args, '--json'], { model: fakeModel(['a']) });
  expect(outcome).toEqual({ exitCode: 2 });
  expect(JSON.parse(out)).toMatchObject({ error: { code: 'ERR_ARGUMENT' } });
});

test('-- ends the flags', async () => {
  const { err } = await call(['generate', '-p', 'x', '--', '--json'], { model: fakeModel(['a']) });
  expect(err).toContain('too many arguments');
});

describe('tokenize', () => {
  const library = { loadTokenizer, defaultModel: goldenFolder };
  const keeper = '323 366';

  test('gives out ids, or their count', async () => {
    const args = ['tokenize', '-p', 'The keeper'];
    expect(await call(args, { library })).toEqual({ outcome: { exitCode: 0 }, out: `${keeper}\n`, err: '' });
    expect((await call([...args, '--count'], { library })).out).toBe('2\n');
    expect(JSON.parse((await call([...args, '--json'], { library })).out)).toEqual({ count: 2, tokens: [323, 366] });
    expect(JSON.parse((await call([...args, '--json', '--count'], { library })).out)).toEqual({ count: 2 });
  });

  test('reads standard input', async () => {
    expect((await call(['tokenize', '--count'], { library, stdin: 'The keeper', terminals: [] })).out).toBe('2\n');
  });

  test('says which file is missing', async () => {
    const { outcome, err } = await call(['tokenize', '-p', 'a', '-m', '/nowhere'], { library });
    expect(outcome).toEqual({ exitCode: 1 });
    expect(err).toMatch(/\/nowhere\/tokenizer\.json must be there.*\(ERR_TOKENIZER\)/);
  });

  test('without a text is a usage error', async () => {
    expect((await call(['tokenize'], { library })).outcome).toEqual({ exitCode: 2 });
  });
});

describe('info', () => {
  const devices = () => [
    { name: 'cpu', description: 'A processor, avx2, 2 threads', memory: () => ({ used: 1, reserved: 2, total: 3 }) },
    { name: 'cuda:0', description: '', unavailable: 'no driver', memory: () => ({ used: 0, reserved: 0, total: 0 }) },
  ];
  const { info } = fakeModel([]);
  const asked: unknown[][] = [];
  const readModelFolder = async (...args: unknown[]) => {
    asked.push(args);
    return { info };
  };
  const options = {
    library: { devices, readModelFolder, defaultModel: '/nowhere' } as never,
    env: { LINATTN_CPU: 'avx2', HOME: '/root' },
  };

  test('for people', async () => {
    const { outcome, out } = await call(['info'], options);
    expect(outcome).toEqual({ exitCode: 0 });
    expect(out.split('\n')).toEqual([
      `linattn ${version} (Node ${process.version}, ${process.platform}-${process.arch})`,
      ...['cpu: A processor, avx2, 2 threads', 'cuda:0: not available: no driver', 'LINATTN_CPU=avx2', ''],
    ]);
  });

  test('with a model, which is not loaded', async () => {
    const { out } = await call(['info', '-m', 'here', '--device', 'cpu', '--dtype', 'int8'], options);
    expect(out).toContain(
      'model: here\n  fake, 1,234,567 parameters, float32 on cpu, vocabulary of 1000\n  state 3.0 MiB',
    );
    expect(asked.at(-1)).toEqual(['here', expect.objectContaining({ device: 'cpu', dtype: 'int8' })]);
  });

  test('without --model describes the model of the package', async () => {
    const library = { devices, readModelFolder, defaultModel: goldenFolder } as never;
    expect((await call(['info'], { ...options, library })).out).toContain(`model: ${goldenFolder}\n  fake`);
    expect(asked.at(-1)![0]).toBe(goldenFolder);
  });

  test('--json', async () => {
    const { out } = await call(['info', '--json', '-m', 'here'], options);
    expect(JSON.parse(out)).toMatchObject({
      version,
      devices: [
        { name: 'cpu', memory: { total: 3 } },
        { name: 'cuda:0', unavailable: 'no driver' },
      ],
      environment: { LINATTN_CPU: 'avx2' },
      model: { folder: 'here', family: 'fake', stateBytes: 3 * 2 ** 20 },
    });
  });
});

describe('chat', () => {
  test('answers line by line and keeps the conversation', async () => {
    const model = fakeModel(['Hel', 'lo']);
    const { outcome, out } = await call(['chat', '--system', 'Be brief', '-n', '2'], {
      model,
      stdin: 'one\n\ntwo\n/exit\nthree\n',
      terminals: [],
    });
    expect({ outcome, out }).toEqual({ outcome: { exitCode: 0 }, out: 'Hello\nHello\n' });
    const first = [
      { role: 'system', content: 'Be brief' },
      { role: 'user', content: 'one' },
    ];
    const second = [...first, { role: 'assistant', content: 'Hello' }, { role: 'user', content: 'two' }];
    expect(model.asked).toMatchObject([{ messages: first, maxTokens: 2 }, { messages: second }]);
    expect(model.disposed.count).toBe(1);
  });

  test('an interruption ends it', async () => {
    const interrupts = new Interrupts(50);
    const model = fakeModel(['a'], () => {
      interrupts.interrupt('SIGINT');
      return new Promise<void>(() => {});
    });
    const { outcome } = await call(['chat'], { model, interrupts, stdin: 'one\ntwo\n', terminals: [] });
    expect(outcome).toEqual({ signal: 'SIGINT' });
    expect(model.asked).toHaveLength(1);
  });
});
