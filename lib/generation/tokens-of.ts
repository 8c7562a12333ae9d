// The token ids of an input.
import { checkedTokens, type Input } from './input';
import type { ModelCore } from './model-core';
import { joined } from './token-list';

/**
 * The whole context that an input stands for.
 * @param held what the session stands for, its pending token included; `append` comes after it
 * @throws LinattnError ERR_TOKENIZER, ERR_ARGUMENT
 */
export async function tokensOf(
  core: ModelCore,
  call: string,
  input: Input,
  held: Int32Array,
  signal: AbortSignal,
): Promise<Int32Array> {
  const encode = (text: string) => core.needTokenizer(call).encode(text, { signal });
  if ('tokens' in input) return checkedTokens(call, input.tokens, core.vocabularySize);
  if ('prompt' in input) return joined(core.needTokenizer(call).prefix, await encode(input.prompt));
  if ('messages' in input) return encode(core.needTokenizer(call).applyChatTemplate(input.messages));
  const { append } = input;
  const more = typeof append === 'string' ? await encode(append) : checkedTokens(call, append, core.vocabularySize);
  return joined(held, more);
}
