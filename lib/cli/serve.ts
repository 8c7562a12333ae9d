// linattn serve: the model behind OpenAI's HTTP endpoints, until a signal; then what runs is ended in order.
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { linattnError } from '../errors';
import { type ServerOptions, sequencesOf, serverDefaults } from '../server/options';
import { addCacheFlag, type CacheFlags, type CacheOptions, withCache } from './cache';
import type { Context } from './context';
import {
  addModelFlags,
  addReportFlags,
  integer,
  loadOptions,
  type ModelFlags,
  notEmpty,
  type ReportFlags,
  withVariable,
} from './flags';
import { errorLine } from './output';
import { ProgressDisplay } from './progress';

interface Flags extends ModelFlags, CacheFlags, ReportFlags {
  host: string;
  port: number;
  modelName?: string;
  apiKey?: string;
  stateFolder?: string;
  maxConcurrency: number;
  maxQueue: number;
  maxPromptTokens: number;
  maxCompletionTokens: number;
  maxBodyBytes: number;
  maxSessions: number;
  sessionTtl: number;
  drainSeconds: number;
}

const notes = `
SIGTERM and Ctrl-C: no new connections, 503 for what waits, what runs may end within --drain-seconds; then the process
ends by that signal (143, 130). A second one ends it at once. Endpoints: docs/server.md`;

export function serveCommand(program: Command, context: Context): void {
  const command = program.command('serve').description('serve the model over HTTP, as OpenAI does');
  const defaults = serverDefaults;
  addCacheFlag(addModelFlags(command))
    .option('--host <address>', 'address to listen on; 0.0.0.0 is every one', notEmpty, defaults.host)
    .option('--port <n>', '0: any that is free', integer(0, 65_535), defaults.port)
    .option('--model-name <name>', '`model` of requests and responses (default: the name of the folder)', notEmpty)
    .addOption(
      withVariable(new Option('--api-key <key>', 'what clients must send as a bearer token'), 'LINATTN_API_KEY'),
    )
    .option(
      '--state-folder <folder>',
      'where sessions are saved and restored by name; made when it is not there',
      notEmpty,
    )
    .option('--max-concurrency <n>', 'requests that read or write at once', integer(1), defaults.maxConcurrency)
    .option('--max-queue <n>', 'requests that wait; one more is answered 429', integer(0), defaults.maxQueue)
    .option('--max-prompt-tokens <n>', 'of one request', integer(1), defaults.maxPromptTokens)
    .option('--max-completion-tokens <n>', 'of one request', integer(1), defaults.maxCompletionTokens)
    .option('--max-body-bytes <n>', 'of one request', integer(1), defaults.maxBodyBytes)
    .option('--max-sessions <n>', 'sessions held between requests', integer(0), defaults.maxSessions)
    .option('--session-ttl <seconds>', 'an unused session is dropped', integer(1), defaults.sessionTtlMs / 1000)
    .option('--drain-seconds <n>', 'time for what runs when the server is to end', integer(0, 2_000_000), 30);
  addReportFlags(command).addHelpText('after', notes);
  command.action((flags: Flags) => {
    // An empty one, of a variable that a script did not set, would open the server to everybody.
    if (flags.apiKey !== undefined && !/^[!-~]+$/.test(flags.apiKey)) {
      command.error("error: option '--api-key' must be printable ASCII without spaces, and not empty");
    }
    return withCache(flags, context, (cache) => serve(flags, context, cache));
  });
}

async function serve(flags: Flags, context: Context, cache: CacheOptions): Promise<void> {
  const { interrupts, stdout, stderr } = context;
  const progress = new ProgressDisplay(context, flags);
  const { load, defaultModel, Server } = context.library();
  if (flags.stateFolder !== undefined) {
    await mkdir(flags.stateFolder, { recursive: true }).catch((cause: Error) => {
      throw linattnError('ERR_FILE', `--state-folder: ${cause.message}`, { cause });
    });
  }
  const model = await load({
    ...loadOptions(flags),
    ...cache,
    maxSequences: sequencesOf(flags),
    signal: interrupts.signal,
    onProgress: (state) => progress.show('load', state),
  });
  progress.clear();
  try {
    const options = serverOptions(flags, flags.model ?? defaultModel);
    const server = new Server(model, { ...options, onError: (error) => stderr.write(`${errorLine(error)}\n`) });
    const listening = await server.listen().catch((cause: Error) => {
      throw linattnError('ERR_ARGUMENT', `--host, --port: ${cause.message}`, { cause });
    });
    stdout.write(`${options.modelName} on ${listening}\n`);
    if (options.apiKey === undefined && options.host !== serverDefaults.host && !flags.quiet) {
      stderr.write('linattn: without --api-key everybody who reaches this address can use it\n');
    }
    await new Promise<void>((resolve) => {
      if (interrupts.signal.aborted) resolve();
      else interrupts.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await server.drain(flags.drainSeconds * 1000);
  } finally {
    await model.dispose();
  }
}

function serverOptions(flags: Flags, folder: string): ServerOptions {
  const { apiKey, stateFolder, sessionTtl, modelName = path.basename(path.resolve(folder)), ...limits } = flags;
  return {
    ...limits,
    modelName,
    sessionTtlMs: sessionTtl * 1000,
    ...(apiKey !== undefined && { apiKey }),
    ...(stateFolder !== undefined && { stateFolder }),
  };
}
