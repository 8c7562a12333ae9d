// Which tokens of which prompts a step takes, without a model.
import fc from 'fast-check';
import { Prefilling, PrefillLine, stepsALevel } from '../../lib/generation/prefill-line';
import type { SequenceState } from '../../lib/state/sequence-store';

interface Given {
  readonly length: number;
  /** Tokens that the sequence has already. */
  readonly from?: number;
  readonly priority?: number;
  readonly signal?: AbortSignal;
}

/** A prompt in the line; `failure` is what it was rejected with. */
function entryOf({ length, from = 0, priority = 0, signal }: Given): Prefilling & { failure?: unknown } {
  const sequence = { length: from } as SequenceState;
  const tokens = new Int32Array(length);
  const entry: Prefilling & { failure?: unknown } = new Prefilling(
    { sequence, tokens, priority, signal, onProgress: () => undefined },
    () => undefined,
    (error) => {
      entry.failure = error;
    },
  );
  return entry;
}

/** One step as the scheduler does it. Returns what it read: [entry, tokens]. */
function step(line: PrefillLine, budget: number): [Prefilling, number][] {
  const pieces = line.next(budget);
  for (const { entry, size, last } of pieces) {
    entry.at += size;
    entry.job.sequence.length += size;
    if (!last) line.push(entry);
  }
  return pieces.map(({ entry, size }) => [entry, size]);
}

function lineOf(entries: readonly Prefilling[]): PrefillLine {
  const line = new PrefillLine();
  for (const entry of entries) line.push(entry);
  return line;
}

test('short prompts share a step; a long one takes what is left of it', () => {
  const entries = [{ length: 5000 }, { length: 100 }, { length: 30 }, { length: 200 }].map(entryOf);
  const [long, a, b, c] = entries;
  const line = lineOf(entries);
  expect(step(line, 512)).toEqual([
    [b, 30],
    [a, 100],
    [c, 200],
    [long, 128],
  ]); // 182 left: two times 64
  expect(step(line, 512)).toEqual([[long, 512]]);
});

test('pieces end on multiples of 64, never pass the budget, and together are the prompts', () => {
  const prompt = fc.record({
    length: fc.integer({ min: 1, max: 700 }),
    from: fc.integer({ min: 0, max: 300 }),
    priority: fc.integer({ min: -2, max: 2 }),
  });
  const budgets = fc.array(fc.integer({ min: 64, max: 600 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(fc.array(prompt, { minLength: 1, maxLength: 12 }), budgets, (prompts, sizes) => {
      const entries = prompts.map(entryOf);
      const line = lineOf(entries);
      for (let i = 0; line.length > 0; i++) {
        const budget = sizes[i % sizes.length]!;
        const read = step(line, budget);
        const total = read.reduce((sum, [, size]) => sum + size, 0);
        if (read.length === 0 || total > budget) return false;
        for (const [entry, size] of read) {
          if (size <= 0 || (entry.left > 0 && entry.job.sequence.length % 64 !== 0)) return false;
        }
      }
      return entries.every(({ left }) => left === 0);
    }),
  );
});

test('higher priority goes first; among equals the one with fewer tokens left, then who came first', () => {
  const entries = [
    { length: 40, priority: -1 },
    { length: 60, priority: 1 },
    { length: 64 },
    { length: 50 },
    { length: 50 },
  ].map(entryOf);
  const line = lineOf(entries);
  const order: number[] = [];
  while (line.length > 0) order.push(...step(line, 64).map(([entry]) => entries.indexOf(entry)));
  expect(order).toEqual([1, 3, 4, 2, 0]);
});

test.each([
  ['long among short ones that keep coming', 0],
  ['of the lowest priority among the highest', 20],
])('a prompt %s is served in turn', (_, distance) => {
  const starved = entryOf({ length: 6400, priority: -distance / 2 });
  const line = lineOf([starved]);
  let waited = 0;
  let longest = 0;
  for (let i = 0; i < 2000; i++) {
    line.push(entryOf({ length: 64, priority: distance / 2 }));
    waited = step(line, 64).some(([entry]) => entry === starved) ? 0 : waited + 1;
    longest = Math.max(longest, waited);
  }
  // The short ones that it held up have risen too.
  expect(longest).toBeGreaterThanOrEqual(stepsALevel * (distance + 1));
  expect(longest).toBeLessThan(200);
});

test('an aborted prompt is rejected with its reason at the next step, wherever it stands', () => {
  const control = new AbortController();
  const entries = [{ length: 64 }, { length: 9000, signal: control.signal }, { length: 64 }].map(entryOf);
  const line = lineOf(entries);
  step(line, 64);
  const reason = new Error('enough');
  control.abort(reason);
  expect(step(line, 512)).toEqual([[entries[2], 64]]);
  expect(entries[1]!.failure).toBe(reason);
  expect(line.length).toBe(0);
});

test('pieces of given ends are the same in any company, and one that is longer than the budget goes alone', () => {
  const given = [{ length: 1300, from: 70 }, { length: 5 }, { length: 513 }, { length: 900, priority: 1 }];
  const sizesIn = (entries: readonly Prefilling[], budget: number) => {
    const line = new PrefillLine(512);
    for (const entry of entries) line.push(entry);
    const sizes = new Map<Prefilling, number[]>(entries.map((entry) => [entry, []]));
    while (line.length > 0) {
      const read = step(line, budget);
      const total = read.reduce((sum, [, size]) => sum + size, 0);
      expect(read.length === 1 || total <= budget).toBe(true);
      for (const [entry, size] of read) sizes.get(entry)!.push(size);
    }
    return entries.map((entry) => sizes.get(entry));
  };
  const wanted = [[442, 512, 346], [5], [512, 1], [512, 388]];
  for (const budget of [64, 512, 700, 4096]) expect(sizesIn(given.map(entryOf), budget)).toEqual(wanted);
  expect(given.map((one) => sizesIn([entryOf(one)], 4096)[0])).toEqual(wanted);
});
