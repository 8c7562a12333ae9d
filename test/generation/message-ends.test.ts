// Conversations in the prefix cache: they share the messages that they begin with.
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { processed } from '../support/cached-reading';
import { tinyModelFolder } from '../support/tiny-model';

const template =
  '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}';
const system = 'You answer in one short sentence, and only about the sea and its ships.';
const conversation = (...contents: string[]) => [
  { role: 'system', content: system } as const,
  ...contents.map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content }) as const),
];
let folder: string;
let model: Model;
beforeAll(async () => {
  folder = tinyModelFolder('qwen3_5/grouped');
  writeFileSync(path.join(folder, 'tokenizer_config.json'), JSON.stringify({ chat_template: template }));
  model = await load({ model: folder, maxSequences: 2, prefixCache: {} });
});
afterAll(async () => {
  await model.dispose();
  rmSync(folder, { recursive: true });
});

test('share the messages that they begin with', async () => {
  const ask = async (...contents: string[]) => {
    const session = model.createSession();
    const usage = await session.prefill({ messages: conversation(...contents) });
    await session.dispose();
    return usage.cachedTokens;
  };
  const long = 'How deep is the sea where the ships lie at anchor, and what is its colour in the morning?';
  const grey = 'It is grey, and green where the sun comes through; nobody knows how deep it is there.';
  const end = (...contents: string[]) => {
    const text = model.tokenizer.applyChatTemplate(conversation(...contents), { add_generation_prompt: false });
    return text.length; // a token is a byte
  };
  expect(await ask(long)).toBe(0);
  expect(await ask('Why?')).toBe(end());
  expect(await ask(long, grey, long)).toBe(end(long) + 'assistant: '.length);
  expect(await ask(long, grey, 'Why?')).toBe(end(long, grey));
});

test('one that waits for a reader of the same text passes several ends at once', async () => {
  const turns = Array.from({ length: 8 }, (_, i) => `${i}: ${'the tide comes in, the tide goes out; '.repeat(5)}`);
  const messages = conversation(...turns, 'And then?');
  const tokens = await model.tokenizer.encode(model.tokenizer.applyChatTemplate(messages));
  const [reader, other] = [model.createSession(), model.createSession()];
  const reads = reader.prefill({ tokens });
  expect((await other.prefill({ messages })).promptTokens).toBe(tokens.length);
  await reads;
  expect((await processed(reader)) + (await processed(other))).toBe(
    tokens.length - system.length - 'system: \n'.length,
  );
  expect(await other.logits()).toEqual(await reader.logits());
  for (const session of [reader, other]) await session.dispose();
});
