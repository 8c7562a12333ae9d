// What is in each step: rows join and leave at every one, steps of prompts and decode steps take turns, and a step that
// fails fails nobody but its rows.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { ModelSession } from '../../lib/generation/model-session';
import type { Piece } from '../../lib/generation/prefill-line';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

const { folder } = readGolden('gated_deltanet/hybrid');
const text = (length: number, start = 0) => Int32Array.from({ length }, (_, i) => ((i + start) * 31) % 200);
const greedy = { temperature: 0, ignoreEos: true };

type Step = { readonly kind: 'decode' | 'prompts'; readonly slots: readonly number[]; readonly tokens: number };

/** Records every step of a model, in the order in which they are enqueued. */
function recorded(model: Model): Step[] {
  const steps: Step[] = [];
  const { graphs, steps: commands } = insideOf(model).core.scheduler as unknown as {
    graphs: { step: (slots: readonly number[]) => unknown };
    steps: { prompts: (pieces: readonly Piece[]) => unknown };
  };
  const [decode, prompts] = [graphs.step.bind(graphs), commands.prompts.bind(commands)];
  graphs.step = (slots) => {
    steps.push({ kind: 'decode', slots, tokens: slots.length });
    return decode(slots);
  };
  commands.prompts = (pieces) => {
    const slots = pieces.map(({ entry }) => entry.job.sequence.slot);
    steps.push({ kind: 'prompts', slots, tokens: pieces.reduce((sum, { size }) => sum + size, 0) });
    return prompts(pieces);
  };
  return steps;
}

const slotOf = (session: unknown): number => (session as ModelSession).sequence.slot;

test('who comes is in the next step, who ends or is aborted is out of it', async () => {
  const model = await load({ model: folder, maxSequences: 3 });
  const steps = recorded(model);
  const [long, short, aborted] = [model.createSession(), model.createSession(), model.createSession()];
  for (const session of [long, short, aborted]) await session.prefill({ tokens: text(70) });
  const control = new AbortController();
  const others: Promise<unknown>[] = [];
  let [joined, cut, count] = [0, 0, 0];
  for await (const _ of long.generate({ maxTokens: 60, ...greedy })) {
    count++;
    if (count === 10) {
      others.push(short.generate({ maxTokens: 5, ...greedy }).result);
      others.push(
        aborted.generate({ maxTokens: 500, ...greedy, signal: control.signal }).result.catch(() => undefined),
      );
      joined = steps.length;
    }
    if (count === 30) {
      control.abort();
      cut = steps.length;
    }
  }
  await Promise.all(others);
  const rowsOf = (session: unknown) => steps.flatMap(({ slots }, i) => (slots.includes(slotOf(session)) ? [i] : []));
  const decodes = rowsOf(short).filter((i) => i >= joined);
  expect(decodes[0]! - joined).toBeLessThanOrEqual(4); // its first token is sampled from the prompt meanwhile
  expect(decodes.length).toBeLessThanOrEqual(5); // 4 tokens after the first, and a step that was in flight
  expect(decodes).toEqual(decodes.map((_, i) => decodes[0]! + i));
  expect(rowsOf(aborted).at(-1)!).toBeLessThan(cut);
  expect(rowsOf(long).length).toBeGreaterThanOrEqual(59);
  await model.dispose();
});

test('prompts that come together share a step, and what is longer than a step takes turns with decode steps', async () => {
  const model = await load({ model: folder, maxSequences: 6, scheduling: { stepTokens: 256, targetStepMs: 1e-3 } });
  const steps = recorded(model);
  const sessions = Array.from({ length: 5 }, () => model.createSession());
  await Promise.all(sessions.map((session, i) => session.prefill({ tokens: text(40 + i, i) })));
  expect(steps).toEqual([{ kind: 'prompts', slots: sessions.map(slotOf), tokens: 210 }]);
  steps.length = 0;

  const reader = model.createSession();
  let read: Promise<unknown> | undefined;
  for await (const _ of sessions[0]!.generate({ maxTokens: 200, ...greedy }))
    read ??= reader.prefill({ tokens: text(1000) });
  await read;
  const during = steps.slice(steps.findIndex(({ kind }) => kind === 'prompts'));
  const until = during.findLastIndex(({ kind }) => kind === 'decode');
  const together = during.slice(0, until);
  expect(together.filter(({ kind }) => kind === 'prompts').length).toBeGreaterThan(10);
  for (const [i, { kind, tokens }] of together.entries()) {
    if (kind === 'decode') continue;
    if (i > 1) expect(tokens).toBeLessThanOrEqual(64); // it missed the target before
    expect(together[i + 1]?.kind ?? 'decode').toBe('decode');
  }
  await model.dispose();
});

test('a step that fails fails its rows and nobody else, and they go on from what was committed', async () => {
  const model = await load({ model: folder, maxSequences: 5 });
  const { scheduler } = insideOf(model).core;
  const writer = model.createSession() as ModelSession;
  const [bad, beside, later] = [1, 2, 3].map(() => model.createSession() as ModelSession);
  const wanted = (await model.generate({ tokens: text(90), maxTokens: 80, ...greedy }).result).tokens;

  const tokens = text(20);
  tokens[11] = 1e6; // no input of a caller gets this far
  const job = { priority: 0, signal: undefined, onProgress: () => undefined };
  const writing = writer.generate({ tokens: text(90), maxTokens: 80, ...greedy });
  let failed: Promise<PromiseSettledResult<unknown>[]> | undefined;
  for await (const _ of writing) {
    failed ??= Promise.allSettled([
      scheduler.prefill({ ...job, sequence: bad!.sequence, tokens }),
      scheduler.prefill({ ...job, sequence: beside!.sequence, tokens: text(30) }),
    ]);
  }
  for (const result of await failed!) {
    expect(result).toMatchObject({ status: 'rejected', reason: { code: 'ERR_ARGUMENT' } });
  }
  expect((await writing.result).tokens).toEqual(wanted);
  for (const session of [bad!, beside!]) {
    expect((await session.generate({ tokens: text(90), maxTokens: 80, ...greedy }).result).tokens).toEqual(wanted);
  }

  // The same of a decode step: a pending token that is no token. Who is in the step with it fails too, and goes on.
  await later!.prefill({ tokens: text(90) });
  const start = model.createSession();
  await start.prefill({ tokens: text(90) });
  await bad!.prefill({ tokens: text(90) });
  const [ill, well] = [bad!, start].map((session) => session.generate({ maxTokens: 80, ...greedy }));
  const written: number[] = [];
  const writes = (async () => {
    for await (const { token } of well!) written.push(token);
  })().catch((error: unknown) => error);
  const iterator = ill![Symbol.asyncIterator]();
  for (let i = 0; i < 3; i++) await iterator.next();
  scheduler.store.setRow(bad!.sequence, 'nextToken', 1e6); // which the next step commits and then reads
  const after = later!.generate({ maxTokens: 80, ...greedy });
  await expect(ill!.result).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  expect(await writes).toMatchObject({ code: 'ERR_ARGUMENT' });
  expect((await after.result).tokens).toEqual(wanted);
  const rest = await start.generate({ maxTokens: 80 - written.length, ...greedy }).result;
  expect(Int32Array.of(...written, ...rest.tokens)).toEqual(wanted);
  await model.dispose();
});

test('more rows than a step has are several steps of one turn', async () => {
  const model = await load({ model: folder, maxSequences: 1040, maxSnapshots: 0 });
  const ask = (i: number) => ({
    tokens: text(3 + (i % 5), i),
    maxTokens: 6,
    temperature: 0.8,
    seed: i,
    ignoreEos: true,
  });
  const results = await Promise.all(Array.from({ length: 1040 }, (_, i) => model.generate(ask(i)).result));
  for (const i of [0, 500, 1023, 1024, 1039]) {
    expect(results[i]!.tokens).toEqual((await model.generate(ask(i)).result).tokens);
  }
  await model.dispose();
});

test('a prompt whose checkpoint fails is read again from the one before', async () => {
  const model = await load({ model: folder, maxSequences: 2, deterministic: true }); // the other session reads all at once
  const { store } = insideOf(model).core.scheduler;
  const [session, other] = [model.createSession(), model.createSession()];
  await other.prefill({ tokens: text(300) });
  await session.prefill({ tokens: text(100) });
  const lost = new Error('no answer from the device');
  const failing = jest.spyOn(store, 'checkpoint').mockRejectedValueOnce(lost);
  await expect(session.prefill({ tokens: text(200) })).rejects.toBe(lost);
  failing.mockRestore();
  await session.prefill({ tokens: text(300) });
  expect(await session.logits()).toEqual(await other.logits());
  await model.dispose();
});
