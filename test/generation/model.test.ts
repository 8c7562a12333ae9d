// A loaded model: the memory that its sequences may take, and its end.
import { load } from '../../lib/generation/load';
import { readGolden } from '../support/golden';
import { collectForgotten, held, thrown, used } from '../support/held';
import { editConfig, modelFolder, removeModelFolders } from '../support/model-folder';

const hybrid = 'gated_deltanet/hybrid';
const tokens = Int32Array.from({ length: 300 }, (_, i) => (i * 31) % 250);

beforeAll(collectForgotten);
afterAll(removeModelFolders);

describe('memory', () => {
  test('that the states of all sequences would need is ERR_OUT_OF_MEMORY, and the process goes on', async () => {
    const folder = modelFolder('qwen3_5/tied');
    editConfig(folder, { max_position_embeddings: 2 ** 40 });
    const before = await held();
    expect(await thrown(() => load({ model: folder, maxSequences: 4096 }))).toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
    });
    expect(await held()).toEqual(before);
    const model = await load({ model: readGolden('qwen3_5/tied').folder, maxSequences: 1 });
    expect((await model.generate({ tokens, maxTokens: 2, ignoreEos: true }).result).tokens.length).toBe(2);
    await model.dispose();
  });

  test('for one sequence more than maxSequences is ERR_OUT_OF_MEMORY until one ends', async () => {
    const model = await load({ model: readGolden(hybrid).folder, maxSequences: 1 });
    const session = model.createSession();
    expect(await thrown(() => model.createSession())).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    await session.dispose();
    await model.createSession().dispose();
    await model.dispose();
  });

  test('more tokens than the positions of a softmax layer is an error, and the session goes on', async () => {
    const folder = modelFolder('qwen3_5/tied');
    editConfig(folder, { max_position_embeddings: 256 });
    const model = await load({ model: folder, maxSequences: 1 });
    const session = model.createSession();
    expect(await thrown(() => session.prefill({ tokens }))).toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(await session.prefill({ tokens: tokens.subarray(0, 250) })).toMatchObject({ promptTokens: 250 });
    expect(await thrown(() => session.generate({ maxTokens: 20, ignoreEos: true }).result)).toMatchObject({
      code: 'ERR_ARGUMENT',
    });
    expect(session.length).toBeGreaterThanOrEqual(250);
    expect(session.length).toBeLessThanOrEqual(256);
    await model.dispose();
  });
});

describe('dispose', () => {
  const { folder } = readGolden(hybrid);

  test('with sessions at work ends them and frees everything; afterwards every call is ERR_DISPOSED', async () => {
    const before = await held();
    const model = await load({ model: folder });
    const reading = model.createSession();
    const long = Int32Array.from({ length: 20_000 }, (_, i) => i % 250);
    const errors = [
      thrown(() => reading.prefill({ tokens: long })),
      thrown(() => model.generate({ tokens, maxTokens: 5000, ignoreEos: true }).result),
      thrown(() => model.generate({ tokens: long, maxTokens: 5000, ignoreEos: true }).result),
    ];
    await new Promise((resolve) => setTimeout(resolve, 30));
    await Promise.all([model.dispose(), model.dispose()]);
    for (const error of await Promise.all(errors)) expect(error).toMatchObject({ code: 'ERR_DISPOSED' });
    for (const call of [
      () => model.createSession(),
      () => model.generate({ tokens }),
      () => reading.generate({ tokens }),
    ]) {
      expect(await thrown(call)).toMatchObject({ code: 'ERR_DISPOSED' });
    }
    await model[Symbol.asyncDispose]();
    expect(await held()).toEqual(before);
  });

  test('of one model leaves another on the same device as it was', async () => {
    const [one, two] = [await load({ model: folder }), await load({ model: readGolden('qwen3_5/tied').folder })];
    const options = { tokens, maxTokens: 10, temperature: 0, ignoreEos: true };
    const [, alone] = [await one.generate(options).result, await two.generate(options).result];
    const [, together] = await Promise.all([one.generate(options).result, two.generate(options).result]);
    expect(together.tokens).toEqual(alone.tokens);
    const running = two.generate(options);
    await one.dispose();
    expect((await running.result).tokens).toEqual(alone.tokens);
    await two.dispose();
  });

  test('after generations of its own gives their sequences back', async () => {
    const model = await load({ model: folder, maxSequences: 1 });
    const before = await used();
    for (const options of [{ maxTokens: 3 }, { maxTokens: 0 }, { maxTokens: 3, signal: AbortSignal.abort() }]) {
      await thrown(() => model.generate({ tokens, ...options }).result);
    }
    for await (const chunk of model.generate({ tokens, maxTokens: 50, ignoreEos: true })) if (chunk.token >= 0) break;
    await used();
    await model.createSession().dispose();
    // What is recorded once for all sequences stays: tables of some bytes a row.
    expect((await used()) - before).toBeLessThan(64 * 1024);
    await model.dispose();
  });
});
