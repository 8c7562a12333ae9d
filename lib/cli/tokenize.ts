// linattn tokenize: the token ids of a text, or how many they are.
import type { Command } from 'commander';
import type { Context } from './context';
import { addReportFlags, modelOption, type ReportFlags } from './flags';
import { ProgressDisplay } from './progress';
import { addPromptFlags, type PromptFlags, readPrompt } from './prompt';

interface Flags extends PromptFlags, ReportFlags {
  model?: string;
  count?: boolean;
}

const examples = `
Examples:
  linattn tokenize --count -f report.txt
  linattn tokenize -p 'Hello world'`;

export function tokenizeCommand(program: Command, context: Context): void {
  const command = program.command('tokenize').description('the token ids of a text, or how many they are');
  addPromptFlags(command)
    .addOption(modelOption())
    .option('--count', 'only how many')
    .option('--json', 'one JSON object: count, and without --count tokens');
  addReportFlags(command).addHelpText('after', examples);
  command.action(async (flags: Flags) => {
    const noText = () => command.error('error: no text: give -p, --prompt-file or a document on standard input');
    const text = (await readPrompt(flags, context)) ?? noText();
    await tokenize(text, flags, context);
  });
}

async function tokenize(text: string, flags: Flags, context: Context): Promise<void> {
  const { interrupts, stdout } = context;
  const { signal } = interrupts;
  const { loadTokenizer, defaultModel } = context.library();
  const tokenizer = await loadTokenizer(flags.model ?? defaultModel, { signal });
  const progress = new ProgressDisplay(context, flags);
  try {
    const tokens = await tokenizer.encode(text, { signal, onProgress: (state) => progress.show('tokenize', state) });
    progress.clear();
    const count = tokens.length;
    if (flags.json) stdout.write(`${JSON.stringify(flags.count ? { count } : { count, tokens: [...tokens] })}\n`);
    else stdout.write(`${flags.count ? count : tokens.join(' ')}\n`);
  } finally {
    progress.clear();
    tokenizer.dispose();
  }
}
