// Whatever JSON a body is, the answer is 200 or an error in OpenAI's form that blames the request, and the server goes on.
import { rmSync } from 'node:fs';
import fc from 'fast-check';
import { serve } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

const names = [
  ...['prompt', 'messages', 'input', 'model', 'max_tokens', 'max_completion_tokens', 'temperature', 'top_p', 'top_k'],
  ...['min_p', 'repetition_penalty', 'seed', 'stop', 'stream', 'stream_options', 'n', 'echo', 'suffix', 'logprobs'],
  ...['logit_bias', 'tools', 'tool_choice', 'response_format', 'modalities', 'session', 'chat_template_kwargs'],
  ...['encoding_format', 'dimensions', 'file', 'ignore_eos'],
];
const valid: Readonly<Record<string, unknown>> = {
  ...{ prompt: 'Hello', messages: [{ role: 'user', content: 'Hello' }], input: 'Hello', max_tokens: 3 },
};
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom(null, true, 0, 1, -1, 1e308, 2 ** 53, '', 'text', [], [[]], {}, [{}], { type: 'text' }),
);
/** A body that would be right, with some of its fields spoilt. */
const body = fc
  .array(fc.tuple(fc.constantFrom(...names), value), { maxLength: 3 })
  .map((fields) => ({ ...valid, ...Object.fromEntries(fields) }));
const url = fc.constantFrom('completions', 'chat/completions', 'embeddings', 'sessions', 'sessions/restore');

test('bodies of any kind', async () => {
  const folder = tinyModelFolder();
  const failures: unknown[] = [];
  const served = await serve({ maxCompletionTokens: 10, onError: (error) => failures.push(error) }, folder);
  const statuses = new Map<number, number>();
  const property = fc.asyncProperty(url, fc.oneof({ weight: 9, arbitrary: body }, value), async (name, given) => {
    const response = await served.post(`/v1/${name}`, given);
    statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
    const text = await response.text();
    if (response.status === 200) return;
    expect([400, 404, 429]).toContain(response.status);
    expect(JSON.parse(text)).toMatchObject({ error: { message: expect.any(String), code: expect.any(String) } });
  });
  try {
    await fc.assert(property, { numRuns: 300, seed: 6 });
  } finally {
    await served.close();
    rmSync(folder, { recursive: true });
  }
  expect(failures).toEqual([]);
  expect(statuses.get(200)).toBeGreaterThan(20);
  expect(statuses.get(400)).toBeGreaterThan(20);
});
