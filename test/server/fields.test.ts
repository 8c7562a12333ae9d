// Every field of a request in turn null, which is as good as absent, and of every wrong kind, which is a 400 that names it.
import { rmSync } from 'node:fs';
import { type Served, serve } from '../support/server';
import { tinyModelFolder } from '../support/tiny-model';

let folder: string;
let served: Served;
beforeAll(async () => {
  folder = tinyModelFolder();
  served = await serve({ maxCompletionTokens: 100 }, folder);
});
afterAll(async () => {
  await served.close();
  rmSync(folder, { recursive: true });
});

const right: Readonly<Record<string, object>> = {
  completions: { prompt: 'Hello', max_tokens: 1 },
  'chat/completions': { messages: [{ role: 'user', content: 'Hello' }], max_tokens: 1 },
  embeddings: { input: 'Hello' },
};

const numbers = ['x', '1', true, {}, [], [1]];
const wholes = [...numbers, -1, 0.5, 2 ** 53, 1e300];
const flags = ['true', 0, 1, {}, []];

const generation: Readonly<Record<string, readonly unknown[]>> = {
  max_tokens: [...wholes, 101],
  max_completion_tokens: [...wholes, 101],
  seed: wholes,
  top_k: [...wholes, 2 ** 31],
  temperature: [...numbers, -1, 1e7],
  top_p: [...numbers, -0.1, 1.1],
  min_p: [...numbers, -0.1, 1.1],
  repetition_penalty: [...numbers, 0, -1, 1e7],
  stop: [1, true, {}, '', [''], [1], [null], Array(17).fill('x')],
  stream: flags,
  ignore_eos: flags,
  stream_options: [1, 'x', true, []],
  session: [1, true, {}, []],
  model: [1, true, {}, []],
  n: [0, 2, '1', true, {}, []],
  best_of: [2, 'x'],
  echo: [true, 'x', 1],
  suffix: ['x', 1, {}],
  logprobs: [true, 1, 'x'],
  top_logprobs: [1, 'x'],
  frequency_penalty: [1, 'x', true],
  presence_penalty: [1, 'x', true],
  logit_bias: [{ 5: 1 }, 'x', 1, true, [1]],
  tools: [[{}], 'x', 1, {}],
  tool_choice: ['required', 1, {}, []],
  functions: [[{}], 'x', {}],
  response_format: [{ type: 'json_object' }, 'x', 1, []],
  modalities: [['audio'], 'x', {}],
  audio: [{}, 'x', 1],
};

const own: Readonly<Record<string, Readonly<Record<string, readonly unknown[]>>>> = {
  completions: {
    ...generation,
    prompt: [
      null,
      '',
      1,
      true,
      {},
      [],
      [[]],
      [''],
      ['a', 'b'],
      [1, 'a'],
      [-1],
      [0.5],
      [256],
      [null],
      [1, null],
      [[1], [2]],
    ],
  },
  'chat/completions': {
    ...generation,
    messages: [null, 'x', 1, true, {}, [], [null], [1], [[]], [{}], [{ role: 'user' }], [{ role: 'x', content: 'a' }]],
    chat_template_kwargs: [1, 'x', true, []],
  },
  embeddings: {
    model: [1, true, {}, []],
    input: [null, '', 1, true, {}, [], [[]], [''], [1, 'a'], ['a', 1], [null], [-1], [256], [[0.5]], [[1], [null]]],
    encoding_format: [1, 'x', true, {}, []],
    dimensions: [1, 'x', {}],
  },
};

const cases = Object.entries(own).flatMap(([url, fields]) =>
  Object.entries(fields).map(([name, values]) => [url, name, values] as const),
);

describe.each(cases)('%s: %s', (url, name, values) => {
  test('of a wrong kind', async () => {
    for (const value of values) {
      const response = await served.post(`/v1/${url}`, { ...right[url], [name]: value });
      const { error } = (await response.json()) as { error?: { param: string; type: string } };
      const param = expect.stringMatching(new RegExp(`^${name}\\b`));
      expect({ value, status: response.status, error }).toEqual({
        value,
        status: 400,
        error: expect.objectContaining({ type: 'invalid_request_error', param }),
      });
    }
  });

  if (!values.includes(null)) {
    test('null', async () => {
      const body = { ...right[url], [name]: null };
      expect((await served.post(`/v1/${url}`, body)).status).toBe(200);
    });
  }
});

test.each([
  [{ content: null }, 'content'],
  [{ content: 1 }, 'content'],
  [{ content: [1] }, 'content[0]'],
  [{ content: [{ type: 'text' }] }, 'content[0]'],
  [{ content: [{ type: 'text', text: 1 }] }, 'text'],
  [{ content: [{ type: 'image_url', image_url: { url: 'x' } }] }, 'content[0]'],
  [{ content: 'a', role: null }, 'role'],
  [{ content: 'a', tool_calls: [] }, 'tool_calls'],
])('a message with %j', async (wrong, param) => {
  const messages = [
    { role: 'user', content: 'a' },
    { role: 'user', ...wrong },
  ];
  const response = await served.post('/v1/chat/completions', { messages, max_tokens: 1 });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ error: { param: expect.stringContaining(param) } });
});
