// Forks go on as if they had read everything themselves, share what they can, and never touch each other.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { Session } from '../../lib/generation/session';
import { seeded } from '../support/arrays';
import { expectSameLogits } from '../support/device';
import { readGolden } from '../support/golden';
import { collectForgotten, used } from '../support/held';
import { insideOf } from '../support/network';

const greedy = { temperature: 0, ignoreEos: true };
const names = ['qwen3_5/grouped', 'gated_deltanet/hybrid'];

beforeAll(collectForgotten);

describe.each(names)('%s', (name) => {
  const { folder } = readGolden(name);
  const random = seeded(11);
  const prompt = Int32Array.from({ length: 330 }, () => random.int(200));
  const more = Int32Array.from({ length: 90 }, () => random.int(200));
  const others = Int32Array.from({ length: 90 }, () => random.int(200));
  let model: Model;

  beforeAll(async () => {
    model = await load({ model: folder, maxSequences: 8 });
  });
  afterAll(() => model.dispose());

  async function reading(tokens: Int32Array): Promise<Session> {
    const session = model.createSession();
    await session.prefill({ tokens });
    return session;
  }
  /** Logits after `prompt` and `rest`, read by a session that never stopped. */
  async function straight(rest: Int32Array): Promise<Float32Array> {
    const session = await reading(prompt);
    await session.prefill({ append: rest });
    const logits = await session.logits();
    await session.dispose();
    return logits;
  }

  test('a fork and its origin go on, each on its own', async () => {
    const [wanted, wantedOther] = [await straight(more), await straight(others)];
    const origin = await reading(prompt);
    const fork = await origin.fork();
    expect(fork.tokens()).toEqual(prompt);
    // The last page is written by both from the same position on.
    const [a, b] = [origin.prefill({ append: more }), fork.prefill({ append: others })];
    expect(await b).toMatchObject({ promptTokens: 420, cachedTokens: 330 });
    await a;
    expectSameLogits(await origin.logits(), wanted);
    expectSameLogits(await fork.logits(), wantedOther);
    await origin.dispose();
    // What the fork shared with its origin is still there: it goes back to the common prompt.
    expect(await fork.prefill({ tokens: Int32Array.of(...prompt, ...more) })).toMatchObject({ cachedTokens: 330 });
    expect(await fork.logits()).toEqual(wanted);
    await fork.dispose();
  });

  test('forks in the middle of a generation write what the origin writes', async () => {
    const origin = await reading(prompt);
    const { tokens } = await origin.generate({ maxTokens: 24, ...greedy }).result;
    await origin.dispose();
    const session = await reading(prompt);
    await session.generate({ maxTokens: 7, ...greedy }).result;
    const forks = [await session.fork(), await session.fork()];
    for (const one of [session, ...forks]) {
      const rest = await one.generate({ maxTokens: 17, ...greedy }).result;
      expect([...one.tokens().subarray(330, 337), ...rest.tokens]).toEqual([...tokens]);
      await one.dispose();
    }
  });

  test('many forks share the prompt: each costs its own state, and its pages when it writes', async () => {
    const origin = await reading(prompt);
    const before = await used();
    const forks = [await origin.fork(), await origin.fork(), await origin.fork()];
    const { stateBytes } = model.info;
    expect((await used()) - before).toBeLessThanOrEqual(forks.length * 2 * stateBytes);
    for (const fork of forks) await fork.dispose();
    expect(await used()).toBe(before);
    await origin.dispose();
  });

  test('a thousand forks of one prompt: no token of it is read again, and all write what one writes', async () => {
    const crowded = await load({ model: folder, maxSequences: 1001 });
    const { store } = insideOf(crowded).core.scheduler;
    const origin = crowded.createSession();
    await origin.prefill({ tokens: prompt });
    const forks: Session[] = [];
    while (forks.length < 1000) forks.push(await origin.fork());
    const results = await Promise.all(forks.map((fork) => fork.generate({ maxTokens: 5, ...greedy }).result));
    const page = store.pagePools.reduce((bytes, pool) => bytes + pool.group.pageElements * 4, 0);
    const all = await used();
    const { tokens } = await origin.generate({ maxTokens: 5, ...greedy }).result;
    for (const result of results) {
      expect(result.tokens).toEqual(tokens);
      expect(result.usage.cachedTokens).toBe(330);
    }
    const { sequence } = forks[999] as unknown as { sequence: Parameters<typeof store.readRow>[0] };
    expect((await store.readRow(sequence)).processed).toBeLessThanOrEqual(5);
    for (const fork of forks) await fork.dispose();
    expect(all - (await used())).toBeLessThanOrEqual(1000 * (2 * crowded.info.stateBytes + page));
    await crowded.dispose();
  });

  test('an empty session has a fork but no snapshot', async () => {
    const session = model.createSession();
    const fork = await session.fork();
    expect(fork.length).toBe(0);
    await fork.dispose();
    await expect(session.snapshot()).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
    await session.dispose();
  });
});
