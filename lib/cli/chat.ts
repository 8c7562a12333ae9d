// linattn chat: a conversation, line by line; the model keeps what it has read between the turns.
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import type { Message, Session } from '../index';
import { addCacheFlag, type CacheFlags, type CacheOptions, withCache } from './cache';
import type { Context } from './context';
import {
  addModelFlags,
  addReportFlags,
  addSamplingFlags,
  generateOptions,
  loadOptions,
  type ModelFlags,
  type ReportFlags,
  type SamplingFlags,
} from './flags';
import { summary } from './output';
import { ProgressDisplay } from './progress';

interface Flags extends ModelFlags, CacheFlags, SamplingFlags, ReportFlags {
  system?: string;
}

const notes = `
Each line is a message. Ctrl-C ends an answer, and the chat where there is none; so do /exit and the end of the input.`;

export function chatCommand(program: Command, context: Context): void {
  const command = program.command('chat').description('talk to a model that has a chat template');
  addSamplingFlags(addCacheFlag(addModelFlags(command))).option(
    '--system <text>',
    'message of the system before the first one',
  );
  addReportFlags(command).addHelpText('after', notes);
  command.action((flags: Flags) => withCache(flags, context, (cache) => chat(flags, context, cache)));
}

async function chat(flags: Flags, context: Context, cache: CacheOptions): Promise<void> {
  const { interrupts, stdin, stdout } = context;
  const progress = new ProgressDisplay(context, flags);
  const { load } = context.library();
  const onProgress = (state: { done: number; total: number }) => progress.show('load', state);
  const model = await load({
    ...loadOptions(flags),
    ...cache,
    signal: interrupts.signal,
    onProgress,
  });
  progress.clear();
  const isTerminal = stdin.isTTY === true && stdout.isTTY === true;
  const lines = createInterface({ input: stdin, ...(isTerminal && { output: stdout }), terminal: isTerminal });
  let stopAnswer: (() => void) | undefined;
  // A terminal in raw mode sends Ctrl-C here instead of a signal.
  lines.on('SIGINT', () => (stopAnswer ? stopAnswer() : interrupts.interrupt('SIGINT')));
  interrupts.signal.addEventListener('abort', () => lines.close(), { once: true });
  try {
    const session = model.createSession();
    const messages: Message[] = flags.system === undefined ? [] : [{ role: 'system', content: flags.system }];
    lines.setPrompt('> ');
    if (isTerminal) lines.prompt();
    for await (const line of lines) {
      if (line.trim() === '/exit') break;
      if (line.trim() !== '') {
        messages.push({ role: 'user', content: line });
        const stopped = (stop: () => void) => {
          stopAnswer = stop;
        };
        const text = await interrupts.orGiveUp(answer(session, messages, flags, context, progress, stopped));
        stopAnswer = undefined;
        messages.push({ role: 'assistant', content: text ?? '' });
      }
      if (interrupts.signal.aborted) break;
      if (isTerminal) lines.prompt();
    }
  } finally {
    lines.close();
    progress.clear();
    await interrupts.orGiveUp(model.dispose());
  }
}

/** Streams the answer; `onStart` is given what ends it early. */
async function answer(
  session: Session,
  messages: readonly Message[],
  flags: Flags,
  { interrupts, stdout, stderr }: Context,
  progress: ProgressDisplay,
  onStart: (stop: () => void) => void,
): Promise<string> {
  const onPrefillProgress = (state: { done: number; total: number }) => progress.show('prefill', state);
  const generation = session.generate({ messages: [...messages], ...generateOptions(flags), onPrefillProgress });
  const iterator = generation[Symbol.asyncIterator]();
  const stop = () => void iterator.return?.();
  onStart(stop);
  interrupts.signal.addEventListener('abort', stop, { once: true });
  try {
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
      progress.clear();
      stdout.write(next.value.text);
    }
  } finally {
    interrupts.signal.removeEventListener('abort', stop);
    progress.clear();
  }
  const result = await generation.result;
  stdout.write('\n');
  if (!flags.quiet && (flags.verbose || stderr.isTTY)) stderr.write(`${summary(result)}\n`);
  return result.text;
}
