// Who else is in a step changes nothing: requests, turns of sessions and forks come and go at random, with priorities and
// aborts, in steps of every size; each result is the one of a run alone, to the bit.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { Session } from '../../lib/generation/session';
import { seeded } from '../support/arrays';
import { onCuda } from '../support/device';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

interface Run {
  readonly tokens: readonly number[];
  readonly logprobs: readonly number[];
}

interface Task {
  readonly prompt: Int32Array;
  readonly options: { readonly maxTokens: number; readonly seed: number; readonly temperature: number };
  /** Of a second turn; none: one request on the model. */
  readonly more: Int32Array | undefined;
}

const cases = [
  ['qwen3_5/grouped', 'float32'],
  ['gated_deltanet/hybrid', 'float32'],
  ['qwen3_5/grouped', 'bfloat16'],
] as const;

/** Collects the tokens of a generation; stops without an error after `most` of them. */
async function collect(run: ReturnType<Model['generate']>, most = Infinity): Promise<Run> {
  const [tokens, logprobs]: [number[], number[]] = [[], []];
  for await (const chunk of run) {
    tokens.push(chunk.token);
    logprobs.push(chunk.logprob);
    if (tokens.length >= most) break;
  }
  return { tokens, logprobs };
}

function tasksOf(seed: number, count: number): Task[] {
  const random = seeded(seed);
  const text = (most: number) => Int32Array.from({ length: 1 + random.int(most) }, () => random.int(200));
  return Array.from({ length: count }, () => ({
    prompt: text(random.int(4) === 0 ? 900 : 150),
    options: { maxTokens: 1 + random.int(30), seed: random.int(1000), temperature: random.int(2), ignoreEos: true },
    more: random.int(3) === 0 ? text(100) : undefined,
  }));
}

/** What a task writes, turn by turn. */
async function perform(model: Model, task: Task, extra: { priority?: number; signal?: AbortSignal }): Promise<Run[]> {
  const { prompt, options, more } = task;
  if (more === undefined) return [await collect(model.generate({ tokens: prompt, ...options, ...extra }))];
  const session = model.createSession();
  let fork: Session | undefined;
  try {
    const runs = [await collect(session.generate({ tokens: prompt, ...options, ...extra }))];
    fork = await session.fork();
    runs.push(await collect(session.generate({ append: more, ...options, ...extra })));
    runs.push(await collect(fork.generate({ ...options, ...extra })));
    return runs;
  } finally {
    await session.dispose();
    await fork?.dispose();
  }
}

const isStart = (part: Run, whole: Run): boolean =>
  part.tokens.every((token, i) => token === whole.tokens[i]) &&
  part.logprobs.every((logprob, i) => logprob === whole.logprobs[i]);

/** Every sequence, state and page is back. */
function expectAllFree(model: Model): void {
  const { store } = insideOf(model).core.scheduler;
  const { free, tensor } = store.states as unknown as { free: number[]; tensor: { shape: number[] } };
  expect(free.length).toBe(tensor.shape[0]);
  for (const pool of store.pagePools) {
    expect(pool.freePages).toBe((pool as unknown as { holders: Uint32Array }).holders.length);
  }
}

/** Tokens of a step and its target in ms. On a GPU 512 tokens or more, for prompts are cut there as in a run alone. */
const steps = onCuda
  ? [
      [512, 1e9],
      [4096, 0.5],
    ]
  : [
      [64, 1e9],
      [512, 0.5],
    ];

describe.each(cases)('%s in %s', (name, dtype) => {
  const tasks = tasksOf(5, 36);
  const alone: Run[][] = [];
  const { folder } = readGolden(name);

  beforeAll(async () => {
    const model = await load({ model: folder, maxSequences: 2, deterministic: true, dtype });
    for (const task of tasks) alone.push(await perform(model, task, {}));
    await model.dispose();
  });

  test.each(steps)('in steps of %i tokens, target %d ms', async (stepTokens, targetStepMs) => {
    const random = seeded(stepTokens);
    const model = await load({
      ...{ model: folder, maxSequences: 60, deterministic: true, dtype },
      scheduling: { stepTokens, targetStepMs },
    });
    let aborted = 0;
    const one = async (i: number) => {
      await new Promise((resolve) => setTimeout(resolve, random.int(150)));
      const priority = random.int(21) - 10;
      if (random.int(4) > 0) {
        expect(await perform(model, tasks[i]!, { priority })).toEqual(alone[i]);
        return;
      }
      const reason = new Error(`task ${i} is aborted`);
      const control = new AbortController();
      setTimeout(() => control.abort(reason), random.int(2) * random.int(120)); // half of them at once: a GPU is soon done
      const signal = control.signal;
      await perform(model, tasks[i]!, { priority, signal }).catch((error: unknown) => {
        expect(error).toBe(reason);
        aborted++;
      });
    };
    const leaver = async (i: number) => {
      const { prompt, options } = tasks[i]!;
      const most = 1 + random.int(10);
      const part = await collect(model.generate({ tokens: prompt, ...options }), most);
      expect(part.tokens.length).toBe(Math.min(most, options.maxTokens));
      expect(isStart(part, alone[i]![0]!)).toBe(true);
    };
    await Promise.all(tasks.flatMap((_, i) => (i % 6 === 0 ? [one(i), leaver(i)] : [one(i)])));
    expect(aborted).toBeGreaterThan(0);
    for (const [i, task] of tasks.entries()) if (i % 9 === 0) expect(await perform(model, task, {})).toEqual(alone[i]);
    expectAllFree(model);
    await model.dispose();
  });
});
