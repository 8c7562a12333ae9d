// The prompt of a command: -p, --prompt-file or standard input; a document goes before the prompt that asks about it.
import { readFile } from 'node:fs/promises';
import { addAbortSignal } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { type Command, Option } from 'commander';
import { linattnError } from '../errors';
import type { Context } from './context';

export interface PromptFlags {
  prompt?: string;
  promptFile?: string;
}

export function addPromptFlags(command: Command): Command {
  return command
    .addOption(new Option('-p, --prompt <text>', 'the prompt; goes behind the document when there is one'))
    .addOption(new Option('-f, --prompt-file <file>', 'prompt or document in UTF-8; - is standard input'));
}

/**
 * The text to read; a blank line parts a document from the prompt behind it. Standard input counts when it is no
 * terminal and no file is named. Undefined: nothing was given, or nothing but an empty document. Throws ERR_FILE for a file that cannot be read or is not UTF-8.
 */
export async function readPrompt(flags: PromptFlags, context: Context): Promise<string | undefined> {
  const document = await readDocument(flags.promptFile, context);
  const { prompt } = flags;
  if (prompt === undefined || !document) return prompt ?? (document || undefined);
  return document + gapAfter(document) + prompt;
}

/** What parts a document from a prompt behind it: a blank line, as far as the document does not end with one. */
export const gapAfter = (document: string): string =>
  document.endsWith('\n\n') ? '' : document.endsWith('\n') ? '\n' : '\n\n';

async function readDocument(file: string | undefined, { stdin, interrupts }: Context): Promise<string | undefined> {
  if (file === undefined && stdin.isTTY) return undefined;
  if (file === undefined || file === '-') {
    try {
      return decoded(await buffer(addAbortSignal(interrupts.signal, stdin)), 'standard input');
    } catch (error) {
      interrupts.signal.throwIfAborted();
      throw error;
    }
  }
  let bytes: Buffer;
  try {
    bytes = await readFile(file, { signal: interrupts.signal });
  } catch (error) {
    interrupts.signal.throwIfAborted();
    const { code } = error as NodeJS.ErrnoException;
    throw linattnError('ERR_FILE', `prompt: ${file} must be a readable file, got ${code}`, { cause: error });
  }
  return decoded(bytes, file);
}

function decoded(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw linattnError('ERR_FILE', `prompt: ${name} must be UTF-8, got other bytes`, { cause: error });
  }
}
