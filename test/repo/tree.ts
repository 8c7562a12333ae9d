// The tracked (and not ignored) files of the repository, for the tests that look at the tree itself.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

export const root = path.join(__dirname, '..', '..');

/** Paths relative to the root, with /, sorted. */
export const files: readonly string[] = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter((file) => file !== '' && fs.existsSync(path.join(root, file)))
  .sort();

export const read = (file: string): string => fs.readFileSync(path.join(root, file), 'utf8');
