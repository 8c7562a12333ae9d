// The prompt of a command: -p, --prompt-file or standard input; a document goes before the prompt that asks about it.
import { constants } from 'node:buffer';
import { createReadStream } from 'node:fs';
import { addAbortSignal, type Readable } from 'node:stream';
import { type Command, Option } from 'commander';
import { linattnError } from '../errors';
import type { Context } from './context';

/** A text of more would be no string. */
const mostBytes = constants.MAX_STRING_LENGTH;

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
  const isStdin = file === undefined || file === '-';
  const name = isStdin ? 'standard input' : file;
  const { signal } = interrupts;
  try {
    const reading = readAll(addAbortSignal(signal, isStdin ? stdin : createReadStream(file)), name);
    const bytes = await interrupts.orGiveUp(reading); // to open a pipe may take for ever
    signal.throwIfAborted();
    return decoded(bytes!, name);
  } catch (error) {
    signal.throwIfAborted();
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (isStdin || syscall === undefined) throw error;
    throw linattnError('ERR_FILE', `prompt: ${name || "''"} must be a readable file, got ${code}`, { cause: error });
  }
}

/** All bytes, of which there may be no end. */
async function readAll(stream: Readable, name: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > mostBytes) {
      throw linattnError('ERR_FILE', `prompt: ${name} must have at most ${mostBytes} bytes, got more`);
    }
  }
  return Buffer.concat(chunks);
}

function decoded(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw linattnError('ERR_FILE', `prompt: ${name} must be UTF-8, got other bytes`, { cause: error });
  }
}
