// Runs the programs beside this file, which use the compiled library, each in a process of its own.
import { spawn } from 'node:child_process';
import path from 'node:path';

/** What the program printed, as JSON, and the Unix time (ms) at which it had ended; rejects unless it exits with 0. */
export function runProgram<T>(
  name: string,
  args: readonly (string | number)[] = [],
  flags: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly printed: T; readonly endedAt: number }> {
  return new Promise((resolve, reject) => {
    const file = path.join(__dirname, 'programs', `${name}.js`);
    const child = spawn(process.execPath, [...flags, file, ...args.map(String)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    let endedAt = 0;
    child.on('error', reject);
    child.on('exit', () => {
      endedAt = Date.now();
    });
    child.on('close', (code, signal) => {
      if (code === 0) resolve({ printed: JSON.parse(output) as T, endedAt });
      else reject(new Error(`${name}: exit code ${code}, signal ${signal}: ${output}`));
    });
  });
}
