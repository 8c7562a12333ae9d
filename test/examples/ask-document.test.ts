// examples/ask-document.mjs: the second run starts from the saved state, and a changed document is read again.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const examples = path.join(__dirname, '..', '..', 'examples');
const program = path.join(examples, 'ask-document.mjs');
const run = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
};

test('reads a document once, answers several questions, and again later', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-example-'));
  const file = path.join(folder, 'novel.txt');
  writeFileSync(file, readFileSync(path.join(examples, 'persuasion.txt'), 'utf8').slice(0, 20_000));
  const questions = ['Sir Walter Elliot', 'Anne'];
  const first = run(file, ...questions);
  expect(first).toMatchObject({ status: 0, stderr: expect.stringMatching(/^read \d{4} tokens in /) });
  for (const question of questions) expect(first.stdout).toContain(question);
  const second = run(file, ...questions);
  expect(second).toMatchObject({ status: 0, stdout: first.stdout, stderr: expect.not.stringContaining('tokens in') });
  const later = new Date(Date.now() + 60_000);
  utimesSync(file, later, later);
  expect(run(file, 'Anne').stderr).toMatch(/^read \d{4} tokens in /);
  expect(run(file)).toMatchObject({ status: 2, stderr: expect.stringContaining('usage') });
  rmSync(folder, { recursive: true });
});
