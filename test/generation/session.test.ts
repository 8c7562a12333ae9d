// Sessions over tiny models: what is kept between turns, what an abort leaves, and every misuse.

import { LinattnError } from '../../lib/errors';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { ModelSession } from '../../lib/generation/model-session';
import { sliceTokensOf } from '../../lib/generation/scheduler';
import { seeded } from '../support/arrays';
import { device, expectSameLogits } from '../support/device';
import { readGolden } from '../support/golden';
import { thrown } from '../support/held';
import { insideOf } from '../support/network';

const names = ['qwen3_5/grouped', 'gated_deltanet/hybrid'];

describe.each(names)('%s', (name) => {
  const golden = readGolden(name);
  const random = seeded(7);
  const prompt = Int32Array.from({ length: 900 }, () => random.int(200));
  let model: Model;

  beforeAll(async () => {
    model = await load({ model: golden.folder, maxSequences: 4 });
  });
  afterAll(() => model.dispose());

  /** Tokens that went through the device for a session, by the device's own count. */
  async function processed(session: unknown): Promise<number> {
    const { sequence } = session as {
      sequence: Parameters<ReturnType<typeof insideOf>['core']['scheduler']['store']['readRow']>[0];
    };
    return (await insideOf(model).core.scheduler.store.readRow(sequence)).processed;
  }

  async function freshLogits(tokens: Int32Array): Promise<Float32Array> {
    const session = model.createSession();
    await session.prefill({ tokens });
    const logits = await session.logits();
    await session.dispose();
    return logits;
  }

  test('an identical prompt reads nothing, an extended one the rest, a diverging one from a checkpoint', async () => {
    const session = model.createSession();
    const first = prompt.subarray(0, 700);
    expect(await session.prefill({ tokens: first })).toMatchObject({ promptTokens: 700, cachedTokens: 0 });
    expect(await processed(session)).toBe(700);
    const logits = await session.logits();

    expect(await session.prefill({ tokens: first })).toMatchObject({ promptTokens: 700, cachedTokens: 700 });
    expect(await processed(session)).toBe(700);
    expect(await session.logits()).toEqual(logits);

    expect(await session.prefill({ tokens: prompt })).toMatchObject({ promptTokens: 900, cachedTokens: 700 });
    expect(await processed(session)).toBe(900);
    expectSameLogits(await session.logits(), await freshLogits(prompt));

    const diverging = Int32Array.from([...first, 5, 6, 7]);
    expect(await session.prefill({ tokens: diverging })).toMatchObject({ promptTokens: 703, cachedTokens: 700 });
    expect(await processed(session)).toBe(903);
    expectSameLogits(await session.logits(), await freshLogits(diverging));

    const other = Int32Array.from([1, ...prompt.subarray(0, 50)]);
    expect(await session.prefill({ tokens: other })).toMatchObject({ promptTokens: 51, cachedTokens: 0 });
    expectSameLogits(await session.logits(), await freshLogits(other));
    expect(session.tokens()).toEqual(other);
    await session.dispose();
  });

  test('a turn after a generation reads the pending token first', async () => {
    const session = model.createSession();
    const start = prompt.subarray(0, 100);
    const { tokens, usage } = await session.generate({ tokens: start, maxTokens: 12, temperature: 0, ignoreEos: true })
      .result;
    expect(usage).toMatchObject({ promptTokens: 100, completionTokens: 12 });
    expect(session.length).toBe(111);
    expect(await processed(session)).toBeLessThanOrEqual(112);
    const before = await processed(session);
    const more = Int32Array.from([9, 8, 7]);
    const { cachedTokens, promptTokens } = await session.prefill({ append: more });
    expect({ cachedTokens, promptTokens }).toEqual({ cachedTokens: 111, promptTokens: 115 });
    expect(await processed(session)).toBe(before + 4);
    const whole = Int32Array.from([...start, ...tokens, ...more]);
    expect(session.tokens()).toEqual(whole);
    expectSameLogits(await session.logits(), await freshLogits(whole));
    await session.dispose();
  });

  test('generating on without input equals one long generation', async () => {
    const options = { temperature: 0.8, topK: 50, seed: 3, ignoreEos: true };
    const start = { tokens: prompt.subarray(0, 130) };
    const once = await model.generate({ ...start, ...options, maxTokens: 30 }).result;
    const session = model.createSession();
    const parts = [await session.generate({ ...start, ...options, maxTokens: 11 }).result];
    parts.push(await session.generate({ ...options, maxTokens: 19 }).result);
    expect(parts.flatMap((part) => [...part.tokens])).toEqual([...once.tokens]);
    expect(parts[1]!.usage.cachedTokens).toBe(140);
    await session.dispose();
  });

  test('concurrent generations give what each gives alone', async () => {
    const inputs = [0, 1, 2].map((i) => ({
      tokens: prompt.subarray(i * 40, 300 + 77 * i),
      maxTokens: 20 + i,
      temperature: 0.9,
      seed: i,
      ignoreEos: true,
    }));
    const alone = [];
    for (const input of inputs) alone.push(await model.generate(input).result);
    const together = await Promise.all(inputs.map((input) => model.generate(input).result));
    expect(together.map((result) => result.tokens)).toEqual(alone.map((result) => result.tokens));
  });

  test('repetition penalty, stop ids and a stop by length', async () => {
    const options = { tokens: prompt.subarray(0, 80), maxTokens: 25, temperature: 0, ignoreEos: true };
    const plain = await model.generate(options).result;
    const penalised = await model.generate({ ...options, repetitionPenalty: 1e6 }).result;
    expect(plain.finishReason).toBe('length');
    const seen = new Set(options.tokens);
    expect([...penalised.tokens].filter((token) => seen.has(token))).toEqual([]);
    expect(new Set(penalised.tokens).size).toBe(25);
    const { generationDefaults } = insideOf(model).core;
    const stop = plain.tokens[4]!;
    const first = plain.tokens.indexOf(stop);
    (generationDefaults as unknown as { stopIds: number[] }).stopIds = [stop];
    const stopped = await model.generate({ ...options, ignoreEos: false }).result;
    expect(stopped).toMatchObject({ finishReason: 'stop' });
    expect(stopped.tokens).toEqual(plain.tokens.slice(0, first + 1));
    (generationDefaults as unknown as { stopIds: number[] }).stopIds = [];
  });

  describe('an abort', () => {
    test('before, rejects with the reason and changes nothing', async () => {
      const session = model.createSession();
      const reason = new Error('not now');
      await expect(session.prefill({ tokens: prompt }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
      expect(session.length).toBe(0);
      await session.dispose();
    });

    test('during prefill leaves the last committed slice, and the session goes on', async () => {
      const slice = sliceTokensOf(device);
      const long = Int32Array.from({ length: slice + 388 }, (_, i) => prompt[i % prompt.length]!);
      const session = model.createSession();
      const control = new AbortController();
      const reason = new Error('enough');
      const reading = session.prefill(
        { tokens: long },
        { signal: control.signal, onPrefillProgress: ({ done }) => done > 0 && control.abort(reason) },
      );
      await expect(reading).rejects.toBe(reason);
      expect(session.length).toBe(slice);
      expect(session.tokens()).toEqual(long.slice(0, slice));
      expect(await session.prefill({ tokens: long })).toMatchObject({ cachedTokens: slice });
      expectSameLogits(await session.logits(), await freshLogits(long));
      await session.dispose();
    });

    test('during generation keeps what was delivered, the last token pending', async () => {
      const session = model.createSession();
      const control = new AbortController();
      const start = prompt.subarray(0, 64);
      const run = session.generate({
        tokens: start,
        maxTokens: 400,
        temperature: 0,
        ignoreEos: true,
        signal: control.signal,
      });
      const got: number[] = [];
      const error = await thrown(async () => {
        for await (const { token } of run) {
          got.push(token);
          if (got.length === 5) control.abort();
        }
      });
      expect((error as Error).name).toBe('AbortError');
      await expect(run.result).rejects.toBe(control.signal.reason);
      const length = session.length;
      expect(length).toBeGreaterThanOrEqual(64 + 4);
      const more = await session.prefill({ append: [3] });
      expect(more.cachedTokens).toBe(length);
      expectSameLogits(await session.logits(), await freshLogits(session.tokens()));
      await session.dispose();
    });

    test('after the end does nothing', async () => {
      const control = new AbortController();
      const run = model.generate({ tokens: prompt.subarray(0, 9), maxTokens: 3, signal: control.signal });
      const { finishReason } = await run.result;
      control.abort();
      expect(['length', 'stop']).toContain(finishReason);
    });
  });

  describe('a generation', () => {
    test('whose loop is left is cancelled, and the session goes on', async () => {
      const session = model.createSession();
      const run = session.generate({ tokens: prompt.subarray(0, 70), maxTokens: 300, temperature: 0, ignoreEos: true });
      let count = 0;
      for await (const chunk of run) {
        expect(chunk.token).toBeGreaterThanOrEqual(0);
        if (++count === 3) break;
      }
      const { finishReason, tokens } = await run.result;
      expect(finishReason).toBe('cancelled');
      expect(tokens.length).toBeLessThan(300);
      await session.prefill({ append: [1, 2] });
      expectSameLogits(await session.logits(), await freshLogits(session.tokens()));
      await session.dispose();
    });

    test('finishes when only its result is awaited, and is iterated once', async () => {
      const run = model.generate({ tokens: prompt.subarray(0, 20), maxTokens: 4, ignoreEos: true });
      expect((await run.result).tokens.length).toBe(4);
      const tokens = [];
      for await (const { token } of run) tokens.push(token);
      expect(tokens.length).toBe(4);
      expect(await thrown(() => run[Symbol.asyncIterator]())).toMatchObject({ code: 'ERR_BUSY' });
    });

    test('whose result nobody reads raises no unhandled rejection', async () => {
      const seen: unknown[] = [];
      const listener = (reason: unknown) => seen.push(reason);
      process.on('unhandledRejection', listener);
      const session = model.createSession();
      session.generate({ tokens: prompt, signal: AbortSignal.timeout(1) });
      await new Promise((resolve) => setTimeout(resolve, 300));
      process.off('unhandledRejection', listener);
      expect(seen).toEqual([]);
      await session.dispose();
    });

    test('with maxTokens 0 only reads', async () => {
      const session = model.createSession();
      const { tokens, finishReason } = await session.generate({ tokens: prompt.subarray(0, 33), maxTokens: 0 }).result;
      expect({ count: tokens.length, finishReason, length: session.length }).toEqual({
        count: 0,
        finishReason: 'length',
        length: 33,
      });
      await session.dispose();
    });

    test('gives log-probabilities of the unmodified distribution', async () => {
      const session = model.createSession();
      await session.prefill({ tokens: prompt.subarray(0, 40) });
      const logits = await session.logits();
      const top = Math.max(...logits);
      const log = top + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0));
      for await (const { token, logprob } of session.generate({ maxTokens: 1, temperature: 1.7, seed: 5 })) {
        expect(logprob).toBeCloseTo(logits[token]! - log, 4);
      }
      await session.dispose();
    });
  });

  test('misuse has a code', async () => {
    const session = model.createSession();
    const run = session.generate({ tokens: prompt, maxTokens: 2 });
    expect(await thrown(() => session.generate({ tokens: prompt }))).toMatchObject({ code: 'ERR_BUSY' });
    expect(await thrown(() => session.prefill({ tokens: prompt }))).toMatchObject({ code: 'ERR_BUSY' });
    await run.result;
    const cases: [() => unknown, string][] = [
      [() => session.generate({ prompt: 'x' }).result, 'ERR_TOKENIZER'],
      [() => session.generate({ tokens: [1], append: [2] } as never), 'ERR_ARGUMENT'],
      [() => session.generate({ tokens: [100000] }).result, 'ERR_ARGUMENT'],
      [() => session.generate({ tokens: [] }).result, 'ERR_ARGUMENT'],
      [() => session.generate({ tokens: { length: -1 } }), 'ERR_ARGUMENT'],
      [() => session.generate({ tokens: { length: 1e15 } }), 'ERR_ARGUMENT'],
      [() => session.generate({ tokens: [1], temperature: -1 }), 'ERR_ARGUMENT'],
      [() => session.generate({ tokens: [1], maxTokens: 1.5 }), 'ERR_ARGUMENT'],
      [() => session.prefill({} as never), 'ERR_ARGUMENT'],
      [() => session.prefill({ prompt: 5 } as never), 'ERR_ARGUMENT'],
      [() => model.tokenizer, 'ERR_TOKENIZER'],
    ];
    for (const [action, code] of cases) expect(await thrown(action)).toMatchObject({ code });
    const empty = model.createSession();
    expect(await thrown(() => empty.generate().result)).toMatchObject({ code: 'ERR_ARGUMENT' });
    expect(await thrown(() => empty.logits())).toMatchObject({ code: 'ERR_ARGUMENT' });
    const others = [model.createSession(), model.createSession()];
    expect(await thrown(() => model.createSession())).toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    for (const one of [session, empty, ...others]) await one.dispose();
  });

  test('dispose during a generation ends it; use afterwards is an error; dispose again is nothing', async () => {
    const session = model.createSession() as ModelSession;
    const run = session.generate({ tokens: prompt, maxTokens: 500, ignoreEos: true });
    await session.dispose();
    const error = await thrown(() => run.result);
    expect(LinattnError.isInstance(error)).toBe(true);
    expect(error).toMatchObject({ code: 'ERR_DISPOSED' });
    expect(await thrown(() => session.prefill({ tokens: prompt }))).toMatchObject({ code: 'ERR_DISPOSED' });
    expect(await thrown(() => session.generate({ tokens: prompt }))).toMatchObject({ code: 'ERR_DISPOSED' });
    await session.dispose();
  });
});
