// Files, folders and variables that are not what a command was told they are.
import { constants } from 'node:buffer';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { Interrupts } from '../../lib/cli/signals';
import { call, fakeModel } from '../support/cli';

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-places-'));
  mkdirSync(path.join(scratch, 'folder'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

test.each([
  ['a folder', 'folder'],
  ['in a folder that is not there', 'none/state'],
])('a state that is to be saved to %s ends the command before it loads a model', async (_, place) => {
  const model = fakeModel(['a']);
  const file = path.join(scratch, place);
  const { outcome, out, err } = await call(['generate', '-p', 'x', '--save-state', file], { model });
  expect({ outcome, out, loaded: model.loaded }).toEqual({ outcome: { exitCode: 1 }, out: '', loaded: [] });
  expect(err).toContain(file);
  expect(err).toMatch(/^linattn: --save-state: .*\(ERR_FILE\)\n$/);
});

test('a state may be saved in the place of another, and where none is', async () => {
  writeFileSync(path.join(scratch, 'old'), 'x');
  for (const name of ['old', 'new']) {
    const model = fakeModel(['a']);
    const file = path.join(scratch, name);
    const { outcome } = await call(['generate', '-p', 'x', '--save-state', file], { model });
    expect({ outcome, saved: model.saved }).toEqual({ outcome: { exitCode: 0 }, saved: [file] });
  }
});

test.each(['--state', '--save-state'])('%s of nothing is a usage error', async (flag) => {
  expect((await call(['generate', '-p', 'x', flag, ''])).outcome).toEqual({ exitCode: 2 });
});

test.each([
  ['folder', 'EISDIR'],
  ['none', 'ENOENT'],
])('a prompt file %s', async (name, code) => {
  const file = path.join(scratch, name);
  const { outcome, err } = await call(['generate', '-f', file], { model: fakeModel(['a']) });
  expect(outcome).toEqual({ exitCode: 1 });
  expect(err).toBe(`linattn: prompt: ${file} must be a readable file, got ${code} (ERR_FILE)\n`);
});

test('a byte order mark is no part of the text, line ends stay', async () => {
  const model = fakeModel(['a']);
  const file = path.join(scratch, 'marked');
  writeFileSync(file, '\ufeffone\r\ntwo\r\n');
  await call(['generate', '-f', file], { model });
  expect(model.asked).toMatchObject([{ prompt: 'one\r\ntwo\r\n' }]);
});

test('a document without an end is refused once it is too long', async () => {
  const chunk = Buffer.alloc(2 ** 24, 'x'); // one, many times: it takes no memory
  let chunks = 0;
  const stdin = new Readable({
    highWaterMark: 1,
    read() {
      chunks++;
      this.push(chunk);
    },
  });
  const { outcome, err } = await call(['generate', '-p', 'x'], { model: fakeModel(['a']), stdin, terminals: [] });
  expect(outcome).toEqual({ exitCode: 1 });
  expect(err).toContain(`standard input must have at most ${constants.MAX_STRING_LENGTH} bytes, got more (ERR_FILE)`);
  expect(chunks).toBeLessThan(2 + constants.MAX_STRING_LENGTH / chunk.length + 2);
});

test('a pipe that nobody writes to keeps no interruption waiting', async () => {
  const pipe = path.join(scratch, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const interrupts = new Interrupts();
  setTimeout(() => interrupts.interrupt('SIGINT'), 200);
  const { outcome } = await call(['generate', '-f', pipe], { model: fakeModel(['a']), interrupts });
  expect(outcome).toEqual({ signal: 'SIGINT' });
  writeFileSync(pipe, ''); // lets go of the thread that opens it
});

test('variables that are set to nothing are not set', async () => {
  const names = ['LINATTN_MODEL', 'LINATTN_DEVICE', 'LINATTN_THREADS', 'LINATTN_CACHE'];
  const before = names.map((name) => process.env[name]);
  for (const name of names) process.env[name] = '';
  try {
    const model = fakeModel(['a']);
    expect((await call(['generate', '-p', 'x'], { model })).outcome).toEqual({ exitCode: 0 });
    const { device, ...loaded } = model.loaded[0]!;
    expect(device).toBe('auto');
    for (const name of ['model', 'threads', 'prefixCache']) expect(loaded).not.toHaveProperty(name);
  } finally {
    names.forEach((name, i) => {
      if (before[i] === undefined) delete process.env[name];
      else process.env[name] = before[i];
    });
  }
});
