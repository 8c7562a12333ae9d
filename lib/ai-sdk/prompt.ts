// The AI SDK's messages as an input of a generation.
import { linattnError, shown } from '../errors';
import type { Message, Tokenizer } from '../index';
import type { Part, PromptMessage } from './specification';

export type PromptInput = { prompt: string } | { tokens: Int32Array };

/**
 * The conversation in the model's chat template, which sees `variables`; for a model without one, the text of the only
 * message there is.
 * @throws LinattnError ERR_UNSUPPORTED for parts that are no text, ERR_TOKENIZER
 */
export async function inputOf(
  tokenizer: Tokenizer,
  prompt: readonly PromptMessage[],
  variables: Record<string, unknown>,
  signal: AbortSignal | undefined,
): Promise<PromptInput> {
  if (!Array.isArray(prompt)) {
    throw linattnError('ERR_ARGUMENT', `ai-sdk: prompt must be a list of messages, got ${shown(prompt)}`);
  }
  for (const message of prompt as unknown[]) checkMessage(message);
  const messages = prompt.map(({ role, content }): Message => ({ role, content: textOf(role, content) }));
  if (tokenizer.hasChatTemplate) {
    const text = tokenizer.applyChatTemplate(messages, variables);
    return { tokens: await tokenizer.encode(text, signal === undefined ? {} : { signal }) };
  }
  const [only] = messages;
  if (messages.length === 1 && only!.role === 'user') return { prompt: only!.content };
  throw linattnError(
    'ERR_TOKENIZER',
    'ai-sdk: a model without a chat template reads one message of the user, got ' +
      messages.map(({ role }) => role).join(', '),
  );
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null;

function checkMessage(message: unknown): void {
  const { role, content } = (isObject(message) ? message : {}) as { role?: unknown; content?: unknown };
  if (
    typeof role === 'string' &&
    (typeof content === 'string' || (Array.isArray(content) && content.every(isObject)))
  ) {
    return;
  }
  const wanted = 'have a role and content, a string or a list of parts';
  throw linattnError('ERR_ARGUMENT', `ai-sdk: messages must ${wanted}, got ${shown(message)}`);
}

function textOf(role: string, content: string | readonly Part[]): string {
  if (typeof content === 'string') return content;
  return content.map((part) => partText(role, part)).join('');
}

function partText(role: string, { type, text, data }: Part): string {
  if (type === 'text' && text !== undefined) return text;
  if (type === 'reasoning') return ''; // templates of models that reason leave out what they thought before
  const file = type === 'file' ? (data as { type?: unknown; text?: unknown }) : undefined;
  if (file?.type === 'text' && typeof file.text === 'string') return file.text;
  throw linattnError('ERR_UNSUPPORTED', `ai-sdk: parts of messages must be text, got ${type} of ${role}`);
}
