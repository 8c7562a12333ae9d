// Where the messages of a conversation end among its tokens.
import type { Message } from '../tokenizer/tokenizer';
import type { ModelCore } from './model-core';

/** Those of the last messages, and of the first one: a system prompt that many conversations share. */
const lastMessages = 8;

/** Lengths beyond `from`, in any order. A message whose end the template does not show is left out. */
export async function messageEnds(
  core: ModelCore,
  messages: readonly Message[],
  tokens: Int32Array,
  from: number,
  signal: AbortSignal,
): Promise<number[]> {
  const tokenizer = core.needTokenizer('messages');
  const whole = tokenizer.applyChatTemplate(messages);
  const ends: number[] = [];
  for (let count = messages.length; count > 0; count--) {
    if (count > 1 && count <= messages.length - lastMessages) continue;
    const text = textOfFirst(core, messages.slice(0, count));
    if (text === undefined || !whole.startsWith(text)) continue;
    const start = await tokenizer.encode(text, { signal });
    if (start.length <= from) break; // so do those before it
    if (start.length < tokens.length && start.every((token, i) => token === tokens[i])) ends.push(start.length);
  }
  return ends;
}

/** undefined when the template refuses a conversation that ends here. */
function textOfFirst(core: ModelCore, messages: readonly Message[]): string | undefined {
  try {
    return core.needTokenizer('messages').applyChatTemplate(messages, { add_generation_prompt: false });
  } catch {
    return undefined;
  }
}
