// Requests of model.generate that wait for a sequence or for pages: in order, by priority, or refused by their code.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { readGolden } from '../support/golden';
import { thrown } from '../support/held';
import { editConfig, modelFolder, removeModelFolders } from '../support/model-folder';
import { insideOf } from '../support/network';

const grouped = readGolden('qwen3_5/grouped').folder;
const prompt = Int32Array.from({ length: 300 }, (_, i) => (i * 31) % 200);
const greedy = { temperature: 0, ignoreEos: true };

afterAll(removeModelFolders);

/** The order in which requests get their first token. */
function firsts(): { order: string[]; watch: (name: string, run: ReturnType<Model['generate']>) => Promise<unknown> } {
  const order: string[] = [];
  const watch = async (name: string, run: ReturnType<Model['generate']>) => {
    let count = 0;
    for await (const _ of run) if (count++ === 0) order.push(name);
    return run.result;
  };
  return { order, watch };
}

describe('while all sequences are in use', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load({ model: grouped, maxSequences: 1, scheduling: { maxQueued: 3 } });
  });
  afterAll(() => model.dispose());
  const ask = (options = {}) => model.generate({ tokens: prompt, maxTokens: 4, ...greedy, ...options });

  test('a request waits; then as many as may wait, and one more is ERR_QUEUE_FULL at the call', async () => {
    const session = model.createSession();
    const waiting = [ask(), ask(), ask()];
    expect(() => ask()).toThrow(expect.objectContaining({ code: 'ERR_QUEUE_FULL' }));
    const { tokens } = await session.generate({ tokens: prompt, maxTokens: 4, ...greedy }).result;
    await session.dispose();
    for (const run of waiting) {
      const result = await run.result;
      expect(result.tokens).toEqual(tokens);
      expect(result.usage.timeToFirstTokenMs).toBeGreaterThan(0);
    }
    expect((await ask().result).tokens).toEqual(tokens);
  });

  test('they come in by priority, and in the order of the calls', async () => {
    const session = model.createSession();
    const { order, watch } = firsts();
    const all = [watch('first', ask()), watch('second', ask()), watch('urgent', ask({ priority: 5, maxTokens: 9 }))];
    await new Promise((resolve) => setTimeout(resolve, 20));
    await session.dispose();
    await Promise.all(all);
    expect(order).toEqual(['urgent', 'first', 'second']);
  });

  test('one of low priority is not passed over for ever', async () => {
    const session = model.createSession();
    let passed = 0;
    const low = ask({ priority: 0, maxTokens: 1 }).result;
    const high = async (): Promise<void> => {
      await ask({ priority: 1, maxTokens: 1 }).result;
      passed++;
      if (!done && passed < 200) await high();
    };
    let done = false;
    const streams = [high(), high()];
    await session.dispose();
    await low;
    done = true;
    expect(passed).toBeGreaterThanOrEqual(8);
    expect(passed).toBeLessThan(12);
    await Promise.all(streams);
  });

  test('an abort in the line rejects with the reason, leaving the loop cancels, and their places are free', async () => {
    const session = model.createSession();
    const control = new AbortController();
    const reason = new Error('not needed');
    const aborted = ask({ signal: control.signal });
    const left = ask();
    const iterator = left[Symbol.asyncIterator]();
    const next = iterator.next();
    const last = ask();
    await new Promise((resolve) => setTimeout(resolve, 5));
    control.abort(reason);
    await expect(aborted.result).rejects.toBe(reason);
    await iterator.return!();
    expect(await next).toMatchObject({ done: true });
    expect(await left.result).toMatchObject({ finishReason: 'cancelled', text: '', usage: { completionTokens: 0 } });
    const more = [ask(), ask()];
    expect(() => ask()).toThrow(expect.objectContaining({ code: 'ERR_QUEUE_FULL' }));
    await session.dispose();
    for (const run of [last, ...more]) expect((await run.result).tokens.length).toBe(4);
  });

  test('bad options are refused at the call and take no place', async () => {
    for (const bad of [
      { maxTokens: -1 },
      { priority: 11 },
      { temperature: -1 },
      { stop: '' },
      { prompt: 'two inputs' },
    ]) {
      expect(await thrown(() => ask(bad))).toMatchObject({ code: 'ERR_ARGUMENT' });
    }
    for (const tokens of [[], [1e6]]) {
      await expect(ask({ tokens }).result).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    }
    expect((await Promise.all([ask(), ask(), ask(), ask()].map((run) => run.result))).length).toBe(4);
  });

  test('the end of the model ends who waits', async () => {
    const other = await load({ model: grouped, maxSequences: 1 });
    other.createSession();
    const waiting = other.generate({ tokens: prompt });
    await new Promise((resolve) => setTimeout(resolve, 5));
    await other.dispose();
    await expect(waiting.result).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('pages', () => {
  interface Pool {
    free: number[];
  }
  const poolOf = (model: Model) => (insideOf(model).core.scheduler.store.pagePools as unknown as Pool[])[0]!;

  /** Leaves `count` pages free; returns what gives the others back. */
  function withFreePages(model: Model, count: number): () => void {
    const { free } = poolOf(model);
    const taken = free.splice(0, free.length - count);
    return () => {
      for (const page of taken) free.push(page);
    };
  }

  test('that a request may come to need are there before it begins: none fails in the middle', async () => {
    const model = await load({ model: grouped, maxSequences: 4 });
    const ask = () => model.generate({ tokens: prompt, maxTokens: 200, ...greedy });
    const alone = await ask().result;
    // 300 + 200 tokens and a copy of the last page of the prompt are 9 pages: two at a time.
    const giveBack = withFreePages(model, 20);
    let most = 0;
    const running = Array.from({ length: 5 }, async () => {
      const run = ask();
      for await (const _ of run) most = Math.max(most, 4 - insideOf(model).core.scheduler.store.vacancies);
      return run.result;
    });
    for (const { tokens } of await Promise.all(running)) expect(tokens).toEqual(alone.tokens);
    expect(most).toBe(2);
    expect(poolOf(model).free.length).toBe(20);
    giveBack();
    await model.dispose();
  });

  test('that a snapshot holds are waited for, once a prompt does not fit without them', async () => {
    const model = await load({ model: grouped, maxSequences: 2 });
    const session = model.createSession();
    await session.prefill({ tokens: prompt });
    const snapshot = await session.snapshot();
    await session.dispose();
    const giveBack = withFreePages(model, 3);
    let done = false;
    const run = model.generate({ tokens: prompt, maxTokens: 10, ...greedy });
    void run.result.then(() => {
      done = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(done).toBe(false);
    snapshot.dispose();
    expect((await run.result).tokens.length).toBe(10);
    giveBack();
    await model.dispose();
  });

  test('fewer than a prompt needs in the whole pool, or positions: refused at once', async () => {
    const folder = modelFolder('qwen3_5/grouped');
    editConfig(folder, { max_position_embeddings: 256 });
    const model = await load({ model: folder, maxSequences: 1 });
    const session = model.createSession(); // so that whoever fits would wait
    await expect(model.generate({ tokens: prompt }).result).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    const { holders } = poolOf(model) as unknown as { holders: Uint32Array };
    Object.assign(poolOf(model), { holders: holders.subarray(0, 2) });
    const tooLong = { tokens: prompt.subarray(0, 129) };
    await expect(model.generate(tooLong).result).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    await expect(session.prefill(tooLong)).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
    expect(session.length).toBe(0);
    Object.assign(poolOf(model), { holders });
    await model.dispose();
  });
});
