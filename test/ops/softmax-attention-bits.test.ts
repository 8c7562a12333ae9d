// The laws of softmaxAttention's bits: slices, company, pages and threads change none.
import fc from 'fast-check';
import { nd } from '../../lib/ops/reference';
import { setThreads } from '../../lib/tensor/device';
import { relativeError, ulp } from '../support/arrays';
import { onCuda } from '../support/device';
import { base, bfloat16, PagedCache, type Prompt, promptOf, type Shape, slice } from '../support/paged-cache';
import { bytes, same } from '../support/same-bytes';

/** Bytes of outputs, maxima and sums of a prompt that is cut at `cuts`, each piece in a call of its own. */
async function fed(shape: Shape, prompt: Prompt, cuts: readonly number[]): Promise<Buffer[]> {
  const cache = new PagedCache(shape, 1);
  await cache.written;
  const tokens = prompt.q.shape[0]!;
  const calls = [0, ...cuts].map((from, i) =>
    cache.attend([{ row: 0, position: from, prompt: slice(prompt, from, cuts[i] ?? tokens) }]),
  );
  const join = async (name: 'out' | 'rowMax' | 'rowSum') =>
    Buffer.concat(await Promise.all(calls.map(async (call) => bytes(await call[name]!.read()))));
  return [await join('out'), await join('rowMax'), await join('rowSum')];
}

/** The same bits; on a GPU, where a row's sums depend on how many tokens come with it, float32 but for rounding. */
function agree(actual: readonly Buffer[], expected: readonly Buffer[]): boolean {
  if (!onCuda) return same(actual, expected);
  const values = (parts: readonly Buffer[]) => {
    const floats = new Float32Array(new Uint8Array(Buffer.concat(parts)).buffer);
    return nd([floats.length], floats);
  };
  return relativeError(values(actual), values(expected)) < 4 * ulp.float32;
}

describe.each<[string, Shape]>([
  ['float32', { heads: 4, kvHeads: 2, width: 24, pageTokens: 16, tablePages: 24 }],
  ['a bfloat16 cache', { heads: 3, kvHeads: 1, width: 32, pageTokens: 64, tablePages: 6, cacheDtype: 'bfloat16' }],
  ['a window', { heads: 2, kvHeads: 2, width: 16, pageTokens: 8, tablePages: 48, window: 70 }],
  ['sinks and ALiBi', { heads: 5, kvHeads: 1, width: 8, pageTokens: 32, tablePages: 12, sinks: true, alibi: true }],
  ['a learned bias', { heads: 4, kvHeads: 2, width: 16, pageTokens: 16, tablePages: 24, biasDistances: 200 }],
  ['sink tokens', { heads: 2, kvHeads: 2, width: 16, pageTokens: 8, tablePages: 52, window: 50, sinkTokens: 20 }],
])('with %s', (_, shape) => {
  const prompt = promptOf(shape, 380, 1);
  test('any slicing gives the same bits', async () => {
    const whole = await fed(shape, prompt, []);
    const slicing = fc.uniqueArray(fc.integer({ min: 1, max: 379 }), { maxLength: 6 });
    const sorted = slicing.map((cuts) => cuts.toSorted((a, b) => a - b));
    await fc.assert(
      fc.asyncProperty(sorted, async (cuts) => agree(await fed(shape, prompt, cuts), whole)),
      { numRuns: 10, seed: 1 },
    );
  });

  test('decode has the bits of prefill', async () => {
    const decode = Array.from({ length: 40 }, (_, i) => 240 + i);
    const short = slice(prompt, 0, 280);
    expect(agree(await fed(shape, short, [1, 2, 3, ...decode]), await fed(shape, short, []))).toBe(true);
  });

  test('other sequences and other pages change no bit', async () => {
    const cache = new PagedCache(shape, 3);
    await cache.written;
    const prompts = [promptOf(shape, 150, 2), slice(prompt, 0, 290), promptOf(shape, 1, 3)];
    const { out } = cache.attend(prompts.map((part, row) => ({ row, position: 0, prompt: part })));
    const size = 4 * shape.heads * shape.width;
    const among = bytes(await out.read()).subarray(150 * size, 440 * size);
    expect(among.equals((await fed(shape, prompts[1]!, []))[0]!)).toBe(true);
  });

  test('threads change no bit', async () => {
    const two = await fed(shape, prompt, [379]);
    try {
      for (const threads of [1, 3]) {
        setThreads(threads);
        expect(same(await fed(shape, prompt, [379]), two)).toBe(true);
      }
    } finally {
      setThreads(2);
    }
  });
});

test.each<[string, Shape]>([
  ['float32', base],
  ['bfloat16', { ...bfloat16, heads: 4, kvHeads: 2, width: 64 }],
])('a prompt and its decode have the same bits alone and among others, %s', async (_, shape) => {
  const [alone, among] = [new PagedCache(shape, 1), new PagedCache(shape, 3)];
  await Promise.all([alone.written, among.written]);
  const [prompt, other] = [promptOf(shape, 203, 1), promptOf(shape, 70, 2)];
  for (const [from, to] of [
    [0, 200],
    [200, 201],
    [201, 203],
  ] as const) {
    const own = { position: from, prompt: slice(prompt, from, to) };
    const { out } = alone.attend([{ ...own, row: 0 }]);
    const all = among.attend([
      { row: 0, position: from, prompt: slice(other, 0, 5) },
      { ...own, row: 2 },
      { row: 1, position: from, prompt: other },
    ]);
    const size = shape.heads * shape.width;
    expect(same([(await all.out.read()).subarray(5 * size, (5 + to - from) * size)], [await out.read()])).toBe(true);
  }
});
