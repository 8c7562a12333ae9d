// Where memory has no room for two checkpoints of every sequence, they share the states that there are.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { seeded } from '../support/arrays';
import { expectSameLogits } from '../support/device';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

const { folder } = readGolden('gated_deltanet/hybrid');
const random = seeded(3);
const tokensOf = (length: number) => Int32Array.from({ length }, () => random.int(200));
const prompts = [70, 90, 110].map(tokensOf);
const more = [20, 30, 40].map(tokensOf);
const greedy = { temperature: 0, ignoreEos: true, maxTokens: 9 };

let model: Model;
let states: { take(): number; give(slot: number): void; readonly vacant: number };
let taken: number[];

beforeEach(async () => {
  model = await load({ model: folder, device: 'cpu', maxSequences: 3, maxSnapshots: 1 });
  states = insideOf(model).core.scheduler.store.states;
  // Three for each sequence and one for the snapshot are left.
  taken = Array.from({ length: 3 }, () => states.take());
  expect(states.vacant).toBe(10);
});
afterEach(() => model.dispose());

/** The logits after each text, read by a session that is alone. */
async function alone(texts: readonly Int32Array[]): Promise<Float32Array[]> {
  const all: Float32Array[] = [];
  for (const tokens of texts) {
    const session = model.createSession();
    await session.prefill({ tokens });
    all.push(await session.logits());
    await session.dispose();
  }
  return all;
}

test('every session goes on with its newest checkpoint, and a snapshot has its state', async () => {
  const texts = prompts.map((prompt, i) => Int32Array.of(...prompt, ...more[i]!));
  const wanted = await alone(texts);
  const sessions = prompts.map(() => model.createSession());
  for (const [i, session] of sessions.entries()) await session.prefill({ tokens: prompts[i]! });
  for (const [i, session] of sessions.entries()) await session.prefill({ append: more[i]! });
  expect(states.vacant).toBe(0);
  const snapshot = await sessions[0]!.snapshot();
  for (const [i, session] of sessions.entries()) {
    expectSameLogits(await session.logits(), wanted[i]!);
    const first = await session.generate(greedy).result;
    // Back to the checkpoint before the generation: nothing of the text is read again.
    expect(await session.prefill({ tokens: texts[i]! })).toMatchObject({ cachedTokens: texts[i]!.length });
    const { tokens } = await session.generate(greedy).result;
    expect(tokens).toEqual(first.tokens);
  }
  // Catching up for another checkpoint takes the place of the one before.
  for (const session of sessions) await session.prefill({ append: tokensOf(10) });
  await sessions[2]!.dispose();
  const resumed = model.createSession({ from: snapshot });
  expectSameLogits(await resumed.logits(), wanted[0]!);
});

test('with room again a session goes back to the prompt before the last', async () => {
  for (const slot of taken) states.give(slot);
  const session = model.createSession();
  await session.prefill({ tokens: prompts[0]! });
  await session.prefill({ append: more[0]! });
  const other = Int32Array.of(...prompts[0]!, 7, 8, 9);
  expect(await session.prefill({ tokens: other })).toMatchObject({ cachedTokens: prompts[0]!.length });
});

test('a checkpoint that a snapshot holds too is not given up: its state would not become free', async () => {
  const [first, second, third] = prompts.map(() => model.createSession());
  await first!.prefill({ tokens: prompts[0]! });
  const snapshot = await first!.snapshot();
  await first!.prefill({ append: more[0]! });
  await second!.prefill({ tokens: prompts[1]! });
  await second!.prefill({ append: more[1]! });
  while (states.vacant > 0) states.take();
  await third!.prefill({ tokens: prompts[2]! });
  const back = (prompt: Int32Array) => ({ tokens: Int32Array.of(...prompt, 7, 8, 9) });
  expect(await first!.prefill(back(prompts[0]!))).toMatchObject({ cachedTokens: prompts[0]!.length });
  expect(await second!.prefill(back(prompts[1]!))).toMatchObject({ cachedTokens: 0 });
  snapshot.dispose();
});

test('a checkpoint that forks share is given up by all of them', async () => {
  const first = model.createSession();
  await first.prefill({ tokens: prompts[0]! });
  const fork = await first.fork();
  await first.prefill({ append: more[0]! });
  await fork.prefill({ append: more[1]! });
  const third = model.createSession();
  while (states.vacant > 0) states.take();
  await third.prefill({ tokens: prompts[2]! });
  expect(await third.generate(greedy).result).toMatchObject({ usage: { completionTokens: 9 } });
});

test('states that are being read are counted as snapshots, and a session that finds no room leaves none behind', async () => {
  const session = model.createSession();
  await session.prefill({ tokens: prompts[0]! });
  const snapshot = await session.snapshot();
  const bytes = await snapshot.serialize();
  snapshot.dispose();
  await session.dispose();
  let goOn = () => {};
  const stalled = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  async function* slow(): AsyncGenerator<Uint8Array> {
    yield bytes.subarray(0, -1);
    await stalled;
    yield bytes.subarray(-1);
  }
  const loading = [1, 2, 3].map(() => model.loadSnapshot(slow()));
  setTimeout(goOn, 50);
  const ended = await Promise.allSettled(loading);
  expect(ended.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected']);
  expect(ended[1]).toMatchObject({ reason: { code: 'ERR_OUT_OF_MEMORY' } });
  (await loading[0]!).dispose();
  const before = states.vacant;
  const others = Array.from({ length: before - 1 }, () => states.take());
  for (let i = 0; i < 4; i++) {
    expect(() => model.createSession()).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_MEMORY' }));
    expect(states.vacant).toBe(1);
  }
  for (const slot of others) states.give(slot);
  for (let i = 0; i < 3; i++) await model.createSession().prefill({ tokens: prompts[0]! });
});
