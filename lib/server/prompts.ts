// What a request gives to read, as token ids.
import { LinattnError, shown } from '../errors';
import { joined } from '../generation/token-list';
import type { Message, Model, Session, Tokenizer } from '../index';
import { ApiError, invalid, unsupported } from './api-error';
import { Fields } from './fields';
import type { Service } from './service';

/** Input of a generation; without any, it goes on from where the session stands. */
export type PromptInput = { tokens: ArrayLike<number> } | { append: ArrayLike<number> } | object;

export type PromptReader = (
  service: Service,
  fields: Fields,
  session: Session | undefined,
  signal: AbortSignal,
) => Promise<PromptInput>;

/** The `prompt` of a completion: the whole context, or what a session reads next. */
export const readTextPrompt: PromptReader = async ({ model, options }, fields, session, signal) => {
  const prompt = single(fields.get('prompt'));
  const begun = session !== undefined && session.length > 0;
  if (begun && (prompt === undefined || prompt.length === 0)) return {};
  if (prompt === undefined) throw invalid('prompt', 'prompt must be given');
  const tokens = typeof prompt !== 'string' ? prompt : await encoded(model.tokenizer, prompt, !begun, signal);
  if (tokens.length === 0 && !begun) throw invalid('prompt', 'prompt must have a token at least');
  if (tokens === prompt) checkIds('prompt', tokens, model);
  checkCount('prompt', tokens.length + (begun ? session.length : 0), options.maxPromptTokens);
  return begun ? { append: tokens } : { tokens };
};

async function encoded(tokenizer: Tokenizer, text: string, begins: boolean, signal: AbortSignal): Promise<Int32Array> {
  const ids = await tokenizer.encode(text, { signal });
  return begins ? joined(tokenizer.prefix, ids) : ids;
}

/** A prompt, or a list of one. */
function single(prompt: unknown): string | number[] | undefined {
  if (prompt === undefined || typeof prompt === 'string') return prompt;
  if (Array.isArray(prompt) && (typeof prompt[0] === 'string' || Array.isArray(prompt[0]))) {
    if (prompt.length > 1) throw unsupported('prompt', `one prompt a request is supported, got ${prompt.length}`);
    return single(prompt[0]);
  }
  if (Array.isArray(prompt)) return prompt;
  throw invalid('prompt', `prompt must be a string or token ids, got ${typeof prompt}`);
}

/** The `messages` of a chat: always the whole conversation, of which a session does not read again what it holds. */
export const readChat: PromptReader = async ({ model, options }, fields, _session, signal) => {
  const { tokenizer } = model;
  const messages = messagesOf(fields.get('messages'));
  if (!tokenizer.hasChatTemplate) {
    throw new ApiError(400, 'no_chat_template', 'the model has no chat template: use /v1/completions', 'messages');
  }
  const text = applied(tokenizer, messages, fields.object('chat_template_kwargs')?.values ?? {});
  const tokens = await tokenizer.encode(text, { signal });
  checkCount('messages', tokens.length, options.maxPromptTokens);
  return { tokens };
};

function applied(tokenizer: Tokenizer, messages: Message[], variables: Record<string, unknown>): string {
  try {
    return tokenizer.applyChatTemplate(messages, variables);
  } catch (error) {
    if (!LinattnError.isInstance(error)) throw error;
    throw new ApiError(400, error.code, error.message, 'messages'); // the template refuses them
  }
}

const roles: Readonly<Record<string, Message['role']>> = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
};

function messagesOf(value: unknown): Message[] {
  if (!Array.isArray(value) || value.length === 0) throw invalid('messages', 'messages must be a list of at least one');
  return value.map((item, i) => {
    const param = `messages[${i}]`;
    const message = new Fields(item, param);
    const name = message.get('role');
    const role = typeof name === 'string' && Object.hasOwn(roles, name) ? roles[name] : undefined;
    if (role === undefined) throw invalid(`${param}.role`, `role must be one of ${Object.keys(roles).join(', ')}`);
    if (message.get('tool_calls') !== undefined) throw unsupported(`${param}.tool_calls`, 'tools are not supported');
    return { role, content: contentOf(message.get('content'), `${param}.content`) };
  });
}

function contentOf(content: unknown, param: string): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) throw invalid(param, 'content must be a string or a list of parts of text');
  return content
    .map((item, i) => {
      const part = new Fields(item, `${param}[${i}]`);
      const text = part.string('text');
      if (part.get('type') === 'text' && text !== undefined) return text;
      throw unsupported(`${param}[${i}]`, 'only parts of text are supported');
    })
    .join('');
}

/** ApiError 400 unless all are ids of tokens. */
export function checkIds(param: string, ids: readonly unknown[], { info: { vocabularySize } }: Model): void {
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabularySize;
  const wrong = ids.findIndex((id) => !isId(id));
  if (wrong < 0) return;
  throw invalid(param, `${param}: token ids must be whole numbers below ${vocabularySize}, got ${shown(ids[wrong])}`);
}

/** OpenAI's own code for a prompt that is too long. */
export function checkCount(param: string, count: number, most: number): void {
  if (count <= most) return;
  const message = `the prompt must have at most ${most} tokens, got ${count}`;
  throw new ApiError(400, 'context_length_exceeded', message, param);
}
