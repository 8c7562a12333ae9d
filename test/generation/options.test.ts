// The options of a generation: undefined is as good as absent, and whatever else is not right is an error that names it.
import type { Model } from '../../lib/generation/model';
import { thrown } from '../support/held';
import { useTinyModel } from '../support/loaded-model';

let model: Model;
useTinyModel((loaded) => {
  model = loaded;
});

const strays = [null, 'x', '1', {}, [], [1], 10n, () => 1];
const noNumbers = [...strays, true, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
const noWholes = [...noNumbers, -1, 0.5, 2 ** 53, 1e300];

const wrong: Readonly<Record<string, readonly unknown[]>> = {
  maxTokens: noWholes,
  seed: noWholes,
  topK: [...noWholes, 2 ** 31],
  temperature: [...noNumbers, -1, 1e7],
  topP: [...noNumbers, -0.1, 1.1],
  minP: [...noNumbers, -0.1, 1.1],
  repetitionPenalty: [...noNumbers, -1, 0, 1e7],
  priority: [...noNumbers, -11, 11, 0.5],
  ignoreEos: [...strays, 0, 1],
  stop: [null, 1, true, {}, '', [''], [null], ['x', 1], () => 1],
};

describe.each(Object.entries(wrong))('%s', (name, values) => {
  test.each(values.map((value) => [Array.isArray(value) ? JSON.stringify(value) : String(value), value]))(
    'of %s',
    async (_, value) => {
      const session = model.createSession();
      const options = { tokens: [1], maxTokens: 1, [name]: value };
      for (const call of [() => session.generate(options).result, () => model.generate(options).result]) {
        expect(await thrown(call)).toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringContaining(name) });
      }
      await session.dispose();
    },
  );

  test('of undefined', async () => {
    const { tokens } = await model.generate({ tokens: [1], maxTokens: 2, ignoreEos: true, [name]: undefined }).result;
    expect(tokens.length).toBeGreaterThan(0);
  });
});

test('without a seed each generation has one of its own', async () => {
  const texts = new Set<string>();
  for (let i = 0; i < 3; i++) {
    const { tokens } = await model.generate({ tokens: [1], maxTokens: 20, temperature: 1, ignoreEos: true }).result;
    texts.add(tokens.join());
  }
  expect(texts.size).toBe(3);
});

test.each([2 ** 31, 2 ** 32 + 3, Number.MAX_SAFE_INTEGER])('%d tokens begin as a few do', async (maxTokens) => {
  const settings = { tokens: [1, 2, 3], temperature: 1, seed: 7, ignoreEos: true };
  const few = await model.generate({ ...settings, maxTokens: 12 }).result;
  const many: number[] = [];
  for await (const { token } of model.generate({ ...settings, maxTokens })) {
    many.push(token);
    if (many.length === 12) break;
  }
  expect(many).toEqual([...few.tokens]);
});
