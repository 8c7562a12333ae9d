// What a path may be that a state is saved to.
import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeDurably } from '../../lib/state/durable-file';

let scratch: string;
beforeEach(() => {
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-durable-'));
});
afterEach(() => rmSync(scratch, { recursive: true }));

const write = (name: string, text: string) => writeDurably('save', path.join(scratch, name), [Buffer.from(text)]);
const read = (name: string) => readFileSync(path.join(scratch, name), 'utf8');

test('a file is made, and replaced', async () => {
  await write('a', 'one');
  expect(read('a')).toBe('one');
  await write('a', 'two');
  expect(read('a')).toBe('two');
  expect(readdirSync(scratch)).toEqual(['a']);
});

test('where there is a link, what it points to is written', async () => {
  mkdirSync(path.join(scratch, 'elsewhere'));
  await write('elsewhere/file', 'one');
  symlinkSync('elsewhere/file', path.join(scratch, 'link'));
  await write('link', 'two');
  expect(read('elsewhere/file')).toBe('two');
  expect(lstatSync(path.join(scratch, 'link')).isSymbolicLink()).toBe(true);
  expect(readdirSync(path.join(scratch, 'elsewhere'))).toEqual(['file']);
});

test('a link to what is not there yet stays, and has the file made', async () => {
  mkdirSync(path.join(scratch, 'elsewhere'));
  symlinkSync('elsewhere', path.join(scratch, 'folder'));
  symlinkSync('../file', path.join(scratch, 'elsewhere', 'link'));
  symlinkSync('folder/link', path.join(scratch, 'link'));
  await write('link', 'one');
  expect(readdirSync(scratch).sort()).toEqual(['elsewhere', 'file', 'folder', 'link']);
  expect(lstatSync(path.join(scratch, 'link')).isSymbolicLink()).toBe(true);
  expect(read('file')).toBe('one');
  symlinkSync('loop', path.join(scratch, 'loop'));
  await expect(write('loop', 'one')).rejects.toMatchObject({ code: 'ELOOP' });
});

test.each(['pipe', 'link to a pipe', 'folder'])('a %s is not replaced', async (kind) => {
  const target = path.join(scratch, kind === 'folder' ? 'folder' : 'pipe');
  if (kind === 'folder') mkdirSync(target);
  else execFileSync('mkfifo', [target]);
  if (kind === 'link to a pipe') symlinkSync(target, path.join(scratch, kind));
  await expect(write(kind, 'state')).rejects.toMatchObject({ code: 'ERR_FILE' });
  expect(statSync(target).isFile()).toBe(false);
  expect(readdirSync(scratch).filter((name) => name.endsWith('.part'))).toEqual([]);
});
