// A model whose pages for keys and values run out: the call fails by its code, and the session goes on when there are some.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { sliceTokensOf } from '../../lib/generation/scheduler';
import { seeded } from '../support/arrays';
import { device } from '../support/device';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

const random = seeded(3);
const slice = sliceTokensOf(device);
const prompt = Int32Array.from({ length: slice + 188 }, () => random.int(200));
const greedy = { maxTokens: 80, temperature: 0, ignoreEos: true };
const outOfMemory = { code: 'ERR_OUT_OF_MEMORY' };
let model: Model;

beforeAll(async () => {
  model = await load({ model: readGolden('qwen3_5/grouped').folder, maxSequences: 3 });
});
afterAll(() => model.dispose());

/** Leaves `count` pages free; returns what gives the others back. */
function withFreePages(count: number): () => void {
  const [pool] = insideOf(model).core.scheduler.store.pagePools as unknown as { free: number[] }[];
  const taken = pool!.free.splice(0, pool!.free.length - count);
  return () => void pool!.free.push(...taken);
}

test('in the middle of a prompt: what was read stays, and the rest is read later', async () => {
  const giveBack = withFreePages(slice / 64 + 1); // one slice and 64 tokens, no more
  const session = model.createSession();
  await expect(session.prefill({ tokens: prompt })).rejects.toMatchObject(outOfMemory);
  expect(session.length).toBe(slice);
  giveBack();
  const whole = model.createSession();
  const wanted = await whole.generate({ tokens: prompt, ...greedy }).result;
  const got = await session.generate({ tokens: prompt, ...greedy }).result;
  expect(got.tokens).toEqual(wanted.tokens);
  for (const one of [session, whole]) await one.dispose();
});

test('in the middle of a generation: its tokens stay, another sequence is not disturbed', async () => {
  const wanted = await model.generate({ tokens: prompt, ...greedy }).result;
  const other = model.createSession();
  await other.prefill({ tokens: prompt.subarray(0, 10) }); // 80 more tokens need a second page
  const session = model.createSession();
  await session.prefill({ tokens: prompt }); // its last page has room for 4 more
  const giveBack = withFreePages(3); // a copy of each last page, and one that the first to need it takes
  const results = await Promise.allSettled([
    session.generate(greedy).result,
    other.generate({ ...greedy, maxTokens: 20 }).result,
  ]);
  expect(results[1].status).toBe('fulfilled');
  expect(results[0]).toMatchObject({ status: 'rejected', reason: outOfMemory });
  const written = session.tokens().subarray(prompt.length);
  expect(written.length).toBeGreaterThan(4);
  giveBack();
  const rest = await session.generate({ ...greedy, maxTokens: 80 - session.length + prompt.length }).result;
  expect([...written, ...rest.tokens].slice(0, 60)).toEqual([...wanted.tokens].slice(0, 60));
  for (const one of [session, other]) await one.dispose();
});
