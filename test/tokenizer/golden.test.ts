// Ids, text and chat templates as Hugging Face's tokenizers and transformers give them (test/golden/README.md).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadTokenizer, type Message, type TextTokenizer } from '../../lib/tokenizer/tokenizer';
import { goldenFolder } from '../support/tiny-tokenizers';

interface Golden {
  vocabulary: number;
  texts: { name: string; text: string; ids: number[]; decoded: string; decoded_without_special: string }[];
  prefixes: { name: string; ids: number[]; texts: string[] }[];
  chats: ({ name: string; messages: Message[]; options: Record<string, unknown> } & (
    | { rendered: string; ids: number[]; error?: never }
    | { error: string }
  ))[];
}
const golden = JSON.parse(readFileSync(join(goldenFolder, 'golden.json'), 'utf8')) as Golden;

let tokenizer: TextTokenizer;
beforeAll(async () => {
  tokenizer = await loadTokenizer(goldenFolder);
});

test('the vocabulary is as large, and no token goes before a prompt', () => {
  expect(tokenizer.size).toBe(golden.vocabulary);
  expect(tokenizer.prefix).toHaveLength(0);
  expect(tokenizer.eosToken).toBe(995);
});

describe.each(golden.texts)('$name', ({ text, ids, decoded, decoded_without_special }) => {
  test('encodes', async () => {
    expect([...(await tokenizer.encode(text))]).toEqual(ids);
  });
  test('decodes, with and without special tokens', () => {
    expect(tokenizer.decode(ids, { specialTokens: true })).toBe(decoded);
    expect(tokenizer.decode(ids)).toBe(decoded_without_special);
  });
});

describe.each(golden.prefixes)('token by token: $name', ({ ids, texts }) => {
  test('every prefix decodes', () => {
    expect(ids.map((_, i) => tokenizer.decode(ids.slice(0, i + 1)))).toEqual(texts);
  });
  test('a stream gives out the text before an unfinished character, and the character once it is complete', () => {
    const stream = tokenizer.textStream();
    let streamed = '';
    for (const [i, id] of ids.entries()) {
      streamed += stream.push(id);
      expect(streamed).toBe(texts[i]!.replace(/\ufffd$/, ''));
    }
    expect(streamed + stream.flush()).toBe(texts.at(-1));
  });
});

describe.each(golden.chats)('chat: $name', ({ messages, options, ...expected }) => {
  test('renders', async () => {
    // The prompt of the assistant is asked for here unless told otherwise, in transformers the other way round.
    const variables = { add_generation_prompt: false, ...options };
    if (expected.error !== undefined) {
      expect(() => tokenizer.applyChatTemplate(messages, variables)).toThrow(
        expect.objectContaining({ code: 'ERR_TOKENIZER', message: `applyChatTemplate: ${expected.error}` }),
      );
      return;
    }
    const text = tokenizer.applyChatTemplate(messages, variables);
    expect(text).toBe(expected.rendered);
    expect([...(await tokenizer.encode(text))]).toEqual(expected.ids);
  });
});
