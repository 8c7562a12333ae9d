// Runs the programs of examples/, each in a process of its own, on the default model.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

export const examplesFolder = path.join(__dirname, '..', '..', 'examples');

/** The longest that one may take to load its model, on a machine that has other work. */
export const startMs = 30_000;

export interface Example {
  readonly child: ChildProcess;
  /** What it has printed. */
  readonly printed: { out: string; err: string };
  /** Resolves when it has ended. */
  readonly ended: Promise<{ code: number | null; signal: string | null; out: string; err: string }>;
}

export function startExample(name: string, args: readonly string[], env: Record<string, string> = {}): Example {
  const child = spawn(process.execPath, [path.join(examplesFolder, name), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const printed = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    printed.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    printed.err += text;
  });
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, ...printed }));
  return { child, printed, ended };
}

export const runExample = (name: string, args: readonly string[], env: Record<string, string> = {}) =>
  startExample(name, args, env).ended;
