// linattn/ai-sdk under the real AI SDK, from dist/ (npm run build).
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { embeddingModel, languageModel } from '../../lib/ai-sdk';
import { load } from '../../lib/generation/load';
import { tinyModelFolder } from '../support/tiny-model';

test('generates, streams, aborts, embeds and keeps a session', () => {
  const folder = tinyModelFolder();
  const program = join(__dirname, '..', 'support', 'programs', 'ai-sdk.mjs');
  const seen = JSON.parse(execFileSync(process.execPath, [program, folder], { encoding: 'utf8' }));
  rmSync(folder, { recursive: true });
  const { text, promptTokens } = seen.expected;
  expect(seen.whole).toMatchObject({
    ...{ text, finishReason: 'length' },
    usage: { inputTokens: promptTokens, outputTokens: 12, totalTokens: promptTokens + 12 },
    metadata: { linattn: { stateBytes: expect.any(Number), tokensPerSecond: expect.any(Number) } },
  });
  expect(seen.streamed.deltas.join('')).toBe(text);
  expect(seen.streamed.deltas.length).toBeGreaterThan(1);
  expect(seen.streamed).toMatchObject({ finishReason: 'length', usage: { outputTokens: 12 } });
  expect(seen.again.cacheReadTokens).toBeGreaterThan(0);
  expect(seen.aborted).toBe(true);
  expect(seen.failed).toBe('ERR_UNSUPPORTED');
  expect(seen.warnings).toEqual([{ type: 'unsupported', feature: 'presencePenalty' }]);
  expect(seen.vectors).toEqual(seen.embedded);
  expect(seen.tokens).toBe(12);
});

test('a model without a chat template reads one message of the user, as a prompt', async () => {
  const model = await load({ maxSequences: 1 });
  const ask = (prompt: Parameters<ReturnType<typeof languageModel>['doGenerate']>[0]['prompt']) =>
    languageModel(model).doGenerate({ prompt, temperature: 0, maxOutputTokens: 8 });
  const user = { role: 'user', content: [{ type: 'text', text: 'The ship' }] } as const;
  const { text } = await model.generate({ prompt: 'The ship', temperature: 0, maxTokens: 8 }).result;
  expect((await ask([user])).content).toEqual([{ type: 'text', text }]);
  await expect(ask([{ role: 'system', content: 'Be brief.' }, user])).rejects.toMatchObject({ code: 'ERR_TOKENIZER' });
  await model.dispose();
});

test('what is no model, call, message or list of texts is refused with a code', async () => {
  const model = await load({ maxSequences: 1 });
  const [language, embedding] = [languageModel(model), embeddingModel(model)];
  const rejected = { code: 'ERR_ARGUMENT', message: expect.stringMatching(/^(ai-sdk|languageModel|embeddingModel): /) };
  for (const stray of [undefined, null, 5, 'x', [], {}] as never[]) {
    if (stray !== undefined && typeof stray !== 'object') {
      expect(() => languageModel(model, stray)).toThrow(expect.objectContaining(rejected));
      expect(() => embeddingModel(model, stray)).toThrow(expect.objectContaining(rejected));
    }
    expect(() => languageModel(stray)).toThrow(expect.objectContaining(rejected));
    expect(() => embeddingModel(stray)).toThrow(expect.objectContaining(rejected));
    await expect(language.doGenerate(stray)).rejects.toMatchObject(rejected);
    await expect(language.doStream({ prompt: [stray] })).rejects.toMatchObject(rejected);
    if (typeof stray === 'string') continue;
    await expect(embedding.doEmbed(stray)).rejects.toMatchObject(rejected);
    if (Array.isArray(stray)) continue;
    await expect(language.doGenerate({ prompt: [{ role: 'user', content: stray }] })).rejects.toMatchObject(rejected);
    await expect(embedding.doEmbed({ values: stray })).rejects.toMatchObject(rejected);
  }
  await model.dispose();
});
