// examples/answer-from-passages.mjs: finds a planted fact, answers from it and says where it stands.
import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { examplesFolder, runExample } from '../support/examples';

const folder = mkdtempSync(path.join(tmpdir(), 'linattn-example-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('the passage with the fact is the first source; the index is made once, and again for a changed document', async () => {
  const file = path.join(folder, 'novel.txt');
  const novel = readFileSync(path.join(examplesFolder, 'persuasion.txt'), 'utf8').slice(0, 30_000).split('\n\n');
  novel.splice(20, 0, 'The magic number of the marble fountain is 48213.');
  writeFileSync(file, novel.join('\n\n'));
  const question = 'What is the magic number of the marble fountain?';
  const first = await runExample('answer-from-passages.mjs', [file, question]);
  expect(first).toMatchObject({ code: 0, err: expect.stringMatching(/^indexed \d+ passages\n$/) });
  const [source, ...more] = first.out
    .trimEnd()
    .split('\n')
    .filter((line) => line.includes('(distance'));
  expect(first.out).toMatch(/^48213/);
  expect(more).toHaveLength(2);
  // The source begins at or before the line of the fact, and holds it.
  const line = Number(/:(\d+) \(distance/.exec(source!)![1]);
  const lines = novel.join('\n\n').split('\n');
  const at = lines.findIndex((text) => text.includes('48213')) + 1;
  expect(lines[line - 1]).toContain(source!.split('): ')[1]!.slice(0, 40));
  expect(at - line).toBeGreaterThanOrEqual(0);
  expect(lines.slice(line - 1, at).join('\n').length).toBeLessThan(1000);

  expect(await runExample('answer-from-passages.mjs', [file, question])).toEqual({ ...first, err: '' });
  const later = new Date(Date.now() + 60_000);
  utimesSync(file, later, later);
  expect((await runExample('answer-from-passages.mjs', [file, question])).err).toMatch(/^indexed/);
});

test('without a question it says how it is called', async () => {
  expect(await runExample('answer-from-passages.mjs', ['x'])).toMatchObject({
    code: 2,
    err: expect.stringContaining('usage'),
  });
});
