// One call of the command line: reads the arguments, runs the command, says how the process should end.
import { Command, CommanderError } from 'commander';
import { type LinattnError, linattnError } from '../errors';
import { benchCommand } from './bench';
import { chatCommand } from './chat';
import type { Context } from './context';
import type { ReportFlags } from './flags';
import { environment } from './flags';
import { generateCommand } from './generate';
import { infoCommand } from './info';
import { errorLine, errorObject } from './output';
import { serveCommand } from './serve';
import { tokenizeCommand } from './tokenize';
import { description, version } from './version';

const commands = [generateCommand, chatCommand, serveCommand, infoCommand, benchCommand, tokenizeCommand];

/** Exit code 0, 1 (failed) or 2 (usage); or the signal that the process should raise again. */
export type Outcome = { readonly exitCode: number } | { readonly signal: NodeJS.Signals };

export async function run(args: readonly string[], context: Context): Promise<Outcome> {
  const { stdout, stderr, interrupts } = context;
  let flags: Partial<ReportFlags> = {};
  const program = new Command('linattn')
    .description(description)
    .version(version, '-V, --version')
    .exitOverride()
    .configureOutput({ writeOut: (text) => stdout.write(text), writeErr: (text) => stderr.write(text) })
    .hook('preAction', (_, command) => {
      flags = command.opts();
    });
  for (const add of commands) add(program, context);
  const variables = Object.entries(environment).map(([name, meaning]) => `  ${name.padEnd(20)} ${meaning}`);
  program.addHelpText('after', `\nEnvironment (flags win over it):\n${variables.join('\n')}`);
  let closed = false;
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    closed ||= error.code === 'EPIPE';
    interrupts.end(error);
  });
  stderr.on('error', () => undefined); // nobody is there to be told
  try {
    await program.parseAsync([...args], { from: 'user' });
    await flushed(stdout);
    // A failed write other than to a closed pipe: the disk is full.
    if (interrupts.signal.aborted && !interrupts.received && !closed) throw interrupts.signal.reason;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return { exitCode: 0 };
      if (asksForJson(args)) stdout.write(`${JSON.stringify(errorObject(usageError(error)))}\n`);
      return { exitCode: 2 };
    }
    if (!interrupts.signal.aborted || (!interrupts.received && !closed)) {
      if (flags.json || flags.jsonl) stdout.write(`${JSON.stringify(errorObject(error))}\n`);
      stderr.write(`${errorLine(error)}\n`);
      if (flags.verbose && error instanceof Error) stderr.write(`${error.stack}\n`);
      return { exitCode: 1 };
    }
  }
  return interrupts.received ? { signal: interrupts.received } : { exitCode: 0 };
}

/** Whether an error is to be an object, as far as that can be told of arguments that are wrong. */
function asksForJson(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).some((arg) => arg === '--json' || arg === '--jsonl');
}

/** commander has written its message to stderr, with `error: ` before it; its help stands in the place of a command. */
const usageError = ({ code, message }: CommanderError): LinattnError =>
  linattnError('ERR_ARGUMENT', code === 'commander.help' ? 'no command' : message.replace(/^error: /, ''));

/** Resolves when what was written has left the process, or cannot any more. */
const flushed = (stream: Context['stdout']): Promise<void> =>
  new Promise((resolve) => {
    if (stream.destroyed || stream.writableEnded) resolve();
    else stream.write('', () => resolve());
  });
