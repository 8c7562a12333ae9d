// One stem an op, in every language: adding an op makes files of one name and adds a line to each of two lists.
import { files, read } from './tree';

const matches = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1]!).sort();

// A long op may be a folder of its stem.
const exists = (place: string) =>
  files.some((file) => file === place || file.startsWith(`${place.replace(/\.\w+$/, '')}/`));

const ops = files
  .map((file) => /^lib\/ops\/(.+)\.ts$/.exec(file)?.[1])
  .filter((stem) => stem !== undefined && stem !== 'op' && /\bdefineOp\b/.test(read(`lib/ops/${stem}.ts`)))
  .sort() as string[];

const tests = files.filter((file) => /^test\/ops\/.*\.test\.ts$/.test(file));

test.each(ops)('%s has its files, of one stem, and a test', (stem) => {
  expect([`native/ops/${stem}.h`, `native/cpu/ops/${stem}.cc`].filter((place) => !exists(place))).toEqual([]);
  // Ops that only have a meaning together may share the test of one of them.
  const named = (file: string) => file === `test/ops/${stem}.test.ts` || read(file).includes(`/lib/ops/${stem}'`);
  expect(tests.some(named)).toBe(true);
});

test('native/ops/op-list.h names every op and no other', () => {
  expect(matches(read('native/ops/op-list.h'), /^#include "ops\/(.+)\.h"$/gm)).toEqual(ops);
});

test('lib/ops/index.ts exports every op', () => {
  expect(matches(read('lib/ops/index.ts'), /from '\.\/(.+)'/g)).toEqual(expect.arrayContaining(ops));
});

test('every test of test/ops is of an op, whose name may have a subject behind it', () => {
  const stems = tests.map((file) => /([^/]+?)(\.long)?\.test\.ts$/.exec(file)![1]);
  expect(stems.length).toBeGreaterThan(0);
  const isOfOp = (stem: string) => ops.some((op) => stem.startsWith(`${op}-`));
  expect(stems.filter((stem) => !exists(`lib/ops/${stem}.ts`) && !isOfOp(stem!))).toEqual([]);
});
