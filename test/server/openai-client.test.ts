// The official client of OpenAI, unmodified, against the server.
import { rmSync } from 'node:fs';
import OpenAI from 'openai';
import { type Served, serve } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

const prompt = 'The keeper of the lighthouse';
const greedy = { model: 'test', temperature: 0, max_tokens: 24 };

describe('the default model', () => {
  let served: Served;
  let expected: string;
  beforeAll(async () => {
    served = await serve({ maxConcurrency: 4 });
    expected = (await served.model.generate({ prompt, maxTokens: 24, temperature: 0 }).result).text;
  });
  afterAll(() => served.close());

  test('completes', async () => {
    const { choices, usage, ...rest } = await served.client.completions.create({ ...greedy, prompt });
    expect(rest).toMatchObject({ object: 'text_completion', model: 'test', id: expect.stringMatching(/^cmpl-/) });
    expect(choices).toEqual([{ index: 0, text: expected, logprobs: null, finish_reason: 'length' }]);
    const count = (await served.model.tokenizer.encode(prompt)).length;
    expect(usage).toMatchObject({
      prompt_tokens: count,
      completion_tokens: 24,
      total_tokens: count + 24,
      prompt_tokens_details: { cached_tokens: 0 },
    });
  });

  test('streams the same text, with the usage when it is asked for', async () => {
    const stream_options = { include_usage: true };
    const stream = await served.client.completions.create({ ...greedy, prompt, stream: true, stream_options });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks.map(({ choices }) => choices[0]?.text ?? '').join('')).toBe(expected);
    expect(chunks.at(-2)!.choices[0]!.finish_reason).toBe('length');
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 24 } });
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
  });

  test('takes token ids, a list of one prompt, and stops', async () => {
    const ids = Array.from(await served.model.tokenizer.encode(prompt));
    const text = async (given: string | string[] | number[] | number[][], more = {}) =>
      (await served.client.completions.create({ ...greedy, prompt: given, ...more })).choices[0]!;
    expect((await text(ids)).text).toBe(expected);
    expect((await text([ids])).text).toBe(expected);
    expect((await text([prompt])).text).toBe(expected);
    const stop = expected.slice(8, 12);
    const cut = { text: expected.slice(0, expected.indexOf(stop)), finish_reason: 'stop' };
    expect(await text(prompt, { stop })).toMatchObject(cut);
    expect(await text(prompt, { stop: ['never there', stop] })).toMatchObject(cut);
  });

  test('a seed gives the same text again', async () => {
    const text = async (seed: number) =>
      (await served.client.completions.create({ ...greedy, prompt, temperature: 1, seed })).choices[0]!.text;
    expect(await text(5)).toBe(await text(5));
    expect(await text(5)).not.toBe(await text(6));
  });

  test('many clients that stream at once each get what they would get alone', async () => {
    const asked = Array.from({ length: 8 }, (_, i) => ({
      prompt: `Day ${i}. The ${['captain', 'teacher', 'painter'][i % 3]} wrote:`.repeat(1 + (i % 3) * 25),
      ...{ model: 'test', temperature: 0.8, seed: i, max_tokens: 10 + 7 * i },
    }));
    const texts = await Promise.all(
      asked.map(async (one) => {
        const stream = await served.client.completions.create({ ...one, stream: true });
        let text = '';
        for await (const chunk of stream) text += chunk.choices[0]!.text;
        return text;
      }),
    );
    for (const [i, { prompt, temperature, seed, max_tokens }] of asked.entries()) {
      const alone = await served.model.generate({ prompt, temperature, seed, maxTokens: max_tokens }).result;
      expect(texts[i]).toBe(alone.text);
    }
  });

  test('progress of a long prompt comes as comments, which the client does not see', async () => {
    const long = 'The keeper wrote one line each night. '.repeat(120);
    const request = { ...greedy, prompt: long, max_tokens: 2, stream: true } as const;
    const body = await (await served.post('/v1/completions', request)).text();
    const notes = body.split('\n').filter((line) => line.startsWith(': '));
    const progress = notes.map((note) => JSON.parse(note.slice(2)).prefill);
    expect(progress.length).toBeGreaterThan(1);
    expect(progress[0]).toMatchObject({ done: 0, cached: 0 });
    expect(progress.at(-1).done).toBe(progress.at(-1).total);
    const chunks = [];
    for await (const chunk of await served.client.completions.create(request)) chunks.push(chunk);
    expect(chunks.every(({ object }) => object === 'text_completion')).toBe(true);
    expect(chunks.at(-1)!.choices[0]!.finish_reason).toBe('length');
  });

  test('embeds: the vectors of the model, as base64 (what the client asks for) and as numbers', async () => {
    const input = ['A ship at sea', 'A boat on the ocean'];
    const vectors = await Promise.all(input.map((text) => served.model.embed({ prompt: text })));
    const packed = await served.client.embeddings.create({ model: 'test', input });
    const plain = await served.client.embeddings.create({ model: 'test', input, encoding_format: 'float' });
    for (const { data, usage } of [packed, plain]) {
      expect(data.map(({ embedding }) => Array.from(embedding))).toEqual(vectors.map((vector) => Array.from(vector)));
      expect(data.map(({ index }) => index)).toEqual([0, 1]);
      expect(usage.prompt_tokens).toBeGreaterThan(5);
    }
  });

  test('lists the model', async () => {
    const { data } = await served.client.models.list();
    expect(data).toMatchObject([{ id: 'test', object: 'model', owned_by: 'linattn' }]);
    expect(await served.client.models.retrieve('test')).toMatchObject({ id: 'test' });
    await expect(served.client.models.retrieve('other')).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  test('a model without a chat template says so', async () => {
    const messages = [{ role: 'user', content: 'Hello' }] as const;
    const asking = served.client.chat.completions.create({ model: 'test', messages: [...messages] });
    await expect(asking).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    await expect(asking).rejects.toMatchObject({ status: 400, code: 'no_chat_template', param: 'messages' });
  });

  test('errors are those of the client', async () => {
    const failing = (more: object) => served.client.completions.create({ ...greedy, prompt, ...more });
    await expect(failing({ model: 'gpt-4' })).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    await expect(failing({ n: 2 })).rejects.toMatchObject({ status: 400, param: 'n', type: 'invalid_request_error' });
    await expect(failing({ prompt: [99999] })).rejects.toMatchObject({ status: 400, param: 'prompt' });
    await expect(failing({ temperature: -1, stream: true })).rejects.toMatchObject({ status: 400 });
  });
});

describe('a model with a chat template', () => {
  let served: Served;
  let folder: string;
  beforeAll(async () => {
    folder = tinyModelFolder();
    served = await serve({}, folder);
  });
  afterAll(async () => {
    await served.close();
    rmSync(folder, { recursive: true });
  });
  const messages = [
    { role: 'developer' as const, content: 'Be brief.' },
    {
      role: 'user' as const,
      content: [
        { type: 'text' as const, text: 'Hel' },
        { type: 'text' as const, text: 'lo' },
      ],
    },
  ];
  const rendered = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Hello' },
  ] as const;
  const asked = { model: 'test', messages, temperature: 0, max_completion_tokens: 10, ignore_eos: true };

  test('chats, whole and in pieces', async () => {
    const expected = await served.model.generate({
      ...{ messages: rendered, maxTokens: 10, temperature: 0, ignoreEos: true },
    }).result;
    const { choices, usage } = await served.client.chat.completions.create(asked);
    expect(choices).toMatchObject([
      { message: { role: 'assistant', content: expected.text }, finish_reason: 'length', index: 0 },
    ]);
    expect(usage).toMatchObject({ prompt_tokens: expected.usage.promptTokens, completion_tokens: 10 });
    const runner = served.client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
    expect(await runner.finalContent()).toBe(expected.text);
    expect(await runner.totalUsage()).toMatchObject({ completion_tokens: 10 });
  });

  test.each([
    ['no messages', { messages: [] }, 'messages'],
    ['a role that is none', { messages: [{ role: 'toString', content: 'x' }] }, 'messages[0].role'],
    ['an image', { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] }, 'messages[0].content[0]'],
    ['a tool', { tools: [{ type: 'function' }] }, 'tools'],
    ['a format', { response_format: { type: 'json_object' } }, 'response_format'],
    ['log-probabilities', { logprobs: true }, 'logprobs'],
  ])('%s is 400', async (_, more, param) => {
    const response = await served.post('/v1/chat/completions', { ...asked, ...more });
    expect(response.status).toBe(400);
    expect((await response.json()) as object).toMatchObject({ error: { type: 'invalid_request_error', param } });
  });
});
