// A copy of the tree in a temporary folder, with the installed node_modules linked, for tests that build or pack.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { files, root } from './tree';

export function temporaryFolder(name: string): string {
  return fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), `linattn-${name}-`)));
}

export function copyOfTree(name: string): string {
  const folder = temporaryFolder(name);
  for (const file of files) {
    fs.mkdirSync(path.join(folder, path.dirname(file)), { recursive: true });
    fs.copyFileSync(path.join(root, file), path.join(folder, file));
  }
  fs.symlinkSync(fs.realpathSync(path.join(root, 'node_modules')), path.join(folder, 'node_modules'), 'dir');
  return folder;
}

/** Runs a program to its end and gives what it wrote to stdout; throws with all that it wrote when it fails. */
export function run(
  folder: string,
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): string {
  // npm's own settings of the surrounding `npm test` would lead an inner npm astray.
  const inherited = Object.entries(process.env).filter(([key]) => !/^npm_(config|package|lifecycle)_/.test(key));
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: folder,
    encoding: 'utf8',
    env: { ...Object.fromEntries(inherited), ...env } as NodeJS.ProcessEnv,
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 1 << 28,
  });
  if (status !== 0) throw error ?? new Error(`${command} ${args.join(' ')}: status ${status}\n${stdout}\n${stderr}`);
  return stdout;
}
