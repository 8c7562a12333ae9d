// The JSON of answers: OpenAI's objects for completions and chat completions.
import { randomUUID } from 'node:crypto';
import type { GenerateResult, Usage } from '../index';

/** OpenAI's usage, and under `linattn` what only a linear-attention model can say. */
export const usageOf = (usage: Usage) => ({
  prompt_tokens: usage.promptTokens,
  completion_tokens: usage.completionTokens,
  total_tokens: usage.promptTokens + usage.completionTokens,
  prompt_tokens_details: { cached_tokens: usage.cachedTokens },
  linattn: {
    state_bytes: usage.stateBytes,
    kv_bytes: usage.kvBytes,
    prefill_ms: usage.prefillMs,
    time_to_first_token_ms: usage.timeToFirstTokenMs,
    tokens_per_second: usage.tokensPerSecond,
  },
});

/** How one answer is written; every object of it has the same id and time. */
export interface Form {
  whole(result: GenerateResult): object;
  /** The events of a stream: what comes before the text, a piece of it, and its end. */
  opening(): object | undefined;
  piece(text: string): object;
  closing(finishReason: string): object;
  /** The event after the end, for who asks for it. */
  usage(usage: Usage): object;
}

/** @param includeUsage the objects before the one with the usage have it as null */
export function completionForm(model: string, includeUsage: boolean): Form {
  const base = { id: `cmpl-${randomUUID()}`, object: 'text_completion', created: seconds(), model };
  const choice = (text: string, finish_reason: string | null) => [{ index: 0, text, logprobs: null, finish_reason }];
  const none = includeUsage ? { usage: null } : {};
  return {
    whole: ({ text, finishReason, usage }) => ({ ...base, choices: choice(text, finishReason), usage: usageOf(usage) }),
    opening: () => undefined,
    piece: (text) => ({ ...base, choices: choice(text, null), ...none }),
    closing: (finishReason) => ({ ...base, choices: choice('', finishReason), ...none }),
    usage: (usage) => ({ ...base, choices: [], usage: usageOf(usage) }),
  };
}

export function chatForm(model: string, includeUsage: boolean): Form {
  const base = { id: `chatcmpl-${randomUUID()}`, object: 'chat.completion', created: seconds(), model };
  const none = includeUsage ? { usage: null } : {};
  const chunk = (delta: object, finish_reason: string | null) => ({
    ...base,
    object: 'chat.completion.chunk',
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...none,
  });
  const message = (content: string) => ({ role: 'assistant', content, refusal: null });
  return {
    whole: ({ text, finishReason, usage }) => ({
      ...base,
      choices: [{ index: 0, message: message(text), logprobs: null, finish_reason: finishReason }],
      usage: usageOf(usage),
    }),
    opening: () => chunk({ role: 'assistant', content: '' }, null),
    piece: (content) => chunk({ content }, null),
    closing: (finishReason) => chunk({}, finishReason),
    usage: (usage) => ({ ...base, object: 'chat.completion.chunk', choices: [], usage: usageOf(usage) }),
  };
}

export const seconds = (): number => Math.floor(Date.now() / 1000);
