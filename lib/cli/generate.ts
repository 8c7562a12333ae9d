// linattn generate: continues a prompt, as long as it may be.
import type { Command } from 'commander';
import type { GenerateResult, Message, Model, Progress, Session } from '../index';
import { checkWritable } from '../state/durable-file';
import { addCacheFlag, type CacheFlags, type CacheOptions, withCache } from './cache';
import type { Context } from './context';
import {
  addModelFlags,
  addReportFlags,
  addSamplingFlags,
  generateOptions,
  loadOptions,
  type ModelFlags,
  notEmpty,
  type ReportFlags,
  type SamplingFlags,
} from './flags';
import { type GenerationOutput, generationOutput, summary } from './output';
import { ProgressDisplay } from './progress';
import { addPromptFlags, gapAfter, type PromptFlags, readPrompt } from './prompt';

interface Flags extends ModelFlags, CacheFlags, SamplingFlags, ReportFlags, PromptFlags {
  chat?: boolean;
  system?: string;
  echo?: boolean;
  state?: string;
  saveState?: string;
}

const examples = `
Examples:
  linattn generate -p 'Once upon a time'
  linattn generate -f report.txt -p 'In short:' -n 200
  cat report.txt | linattn generate --chat -p 'Summarize.' --json | jq -r .text
  linattn generate -f report.txt -n 0 --save-state report.state
  linattn generate --state report.state -p 'In short:'
  linattn generate -f report.txt -p 'In short:' --cache states

Standard input is read unless it is a terminal or --prompt-file names a file; a document goes before the prompt of -p.
The prompt is continued as it is; --chat makes it a message and applies the chat template of the model. With --state the
prompt goes behind what the state has read, after a blank line.`;

export function generateCommand(program: Command, context: Context): void {
  const command = program.command('generate').description('continue a prompt');
  addPromptFlags(command)
    .option('--chat', 'apply the chat template of the model: the prompt is a message of the user')
    .option('--system <text>', 'message of the system before it (implies --chat)')
    .option('--echo', 'give out the prompt before the text')
    .option('--state <file>', 'go on from a state that --save-state has saved with the same model', notEmpty)
    .option('--save-state <file>', 'save the state after the last token', notEmpty);
  addSamplingFlags(addCacheFlag(addModelFlags(command)))
    .option('--json', 'one JSON object: text, tokens, finishReason, usage')
    .option('--jsonl', 'a line of JSON for each event, the last one the result');
  addReportFlags(command).addHelpText('after', examples);
  command.action(async (flags: Flags) => {
    if (flags.json && flags.jsonl) command.error("error: options '--json' and '--jsonl' exclude each other");
    if (flags.state !== undefined && isChat(flags)) {
      command.error("error: options '--state' and '--chat' exclude each other");
    }
    const noPrompt = () => command.error('error: no prompt: give -p, --prompt-file or a document on standard input');
    await withCache(flags, context, (cache) => generate(flags, context, cache, noPrompt));
  });
}

async function generate(flags: Flags, context: Context, cache: CacheOptions, noPrompt: () => never): Promise<void> {
  const { interrupts, stderr } = context;
  const progress = new ProgressDisplay(context, flags);
  let output = generationOutput(context, flags);
  let model: Model | undefined;
  try {
    const prompt = (await readPrompt(flags, context)) ?? noPrompt();
    if (flags.saveState !== undefined) await checkWritable('--save-state', flags.saveState);
    const { load } = context.library();
    const onProgress = (state: Progress) => progress.show('load', state);
    model = await load({
      ...loadOptions(flags),
      ...cache,
      signal: interrupts.signal,
      onProgress,
    });
    hint(model, flags, context);
    if (flags.echo) output = generationOutput(context, flags, prompt);
    const result = await interrupts.orGiveUp(generateWith(model, prompt, flags, context, output, progress));
    progress.clear();
    output.end(result);
    if (result && !flags.quiet && (stderr.isTTY || flags.verbose)) stderr.write(`${summary(result)}\n`);
  } catch (error) {
    if (!interrupts.signal.aborted) throw error;
    output.end(undefined);
  } finally {
    progress.clear();
    if (model) await interrupts.orGiveUp(model.dispose());
  }
}

async function generateWith(
  model: Model,
  prompt: string,
  flags: Flags,
  { interrupts }: Context,
  output: GenerationOutput,
  progress: ProgressDisplay,
): Promise<GenerateResult> {
  const { signal } = interrupts;
  const session = flags.state === undefined ? model.createSession() : await sessionFrom(model, flags.state, signal);
  const input = inputOf(model, session, prompt, flags);
  // Encoded here for the progress of a long text; the tokenizer knows it when the generation asks again.
  const onProgress = (state: Progress) => progress.show('tokenize', state);
  const started = performance.now();
  await model.tokenizer.encode(textOf(model, input), { signal, onProgress });
  const tokenizeMs = performance.now() - started;
  const generation = session.generate({
    ...input,
    ...generateOptions(flags),
    onPrefillProgress(state) {
      progress.show('prefill', state);
      output.prefill(state);
    },
  });
  // An interruption leaves the loop, in the middle of the prompt too: the result is what there is, 'cancelled'.
  const iterator = generation[Symbol.asyncIterator]();
  const leave = () => void iterator.return?.();
  if (signal.aborted) leave();
  else signal.addEventListener('abort', leave, { once: true });
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    progress.clear();
    output.token(next.value);
  }
  const result = await generation.result;
  if (flags.saveState !== undefined && !signal.aborted) {
    const snapshot = await session.snapshot();
    await snapshot.save(flags.saveState, { signal });
  }
  return withTokenizing(result, tokenizeMs);
}

/** The result, whose times count what was spent on tokenizing before the call. */
function withTokenizing(result: GenerateResult, milliseconds: number): GenerateResult {
  const { tokenizeMs, timeToFirstTokenMs } = result.usage;
  const usage = {
    ...result.usage,
    tokenizeMs: tokenizeMs + milliseconds,
    timeToFirstTokenMs: timeToFirstTokenMs === 0 ? 0 : timeToFirstTokenMs + milliseconds,
  };
  return { ...result, usage };
}

async function sessionFrom(model: Model, file: string, signal: AbortSignal): Promise<Session> {
  const from = await model.loadSnapshot(file, { signal });
  return model.createSession({ from });
}

type TextInput = { prompt: string } | { messages: readonly Message[] } | { append: string };

function inputOf(model: Model, session: Session, prompt: string, flags: Flags): TextInput {
  if (flags.state !== undefined) {
    const read = model.tokenizer.decode(session.tokens().subarray(-8));
    return { append: gapAfter(read) + prompt };
  }
  if (!isChat(flags)) return { prompt };
  const system = flags.system === undefined ? [] : [{ role: 'system', content: flags.system } as const];
  return { messages: [...system, { role: 'user', content: prompt }] };
}

function textOf({ tokenizer }: Model, input: TextInput): string {
  if ('messages' in input) return tokenizer.applyChatTemplate(input.messages);
  return 'append' in input ? input.append : input.prompt;
}

const isChat = (flags: Flags) => flags.chat === true || flags.system !== undefined;

/** Models that were trained to answer continue a raw prompt badly. */
function hint(model: Model, flags: Flags, { stderr }: Context): void {
  if (isChat(flags) || flags.quiet || !stderr.isTTY) return;
  try {
    model.tokenizer.applyChatTemplate([{ role: 'user', content: '' }]);
  } catch {
    return;
  }
  stderr.write('hint: this model has a chat template; --chat applies it\n');
}
