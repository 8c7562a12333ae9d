// Longer than 300 lines: one body of tests for every device, each rule and layout of the op.
// softmaxAttention against its float64 reference, the laws of its bits, and what it refuses.
import fc from 'fast-check';
import { LinattnError } from '../../lib/errors';
import { type NdArray, nd } from '../../lib/ops/reference';
import { packedSequences, Sequences, uniformSequences } from '../../lib/ops/sequences';
import { type SoftmaxAttentionInput, softmaxAttention, softmaxAttentionCost } from '../../lib/ops/softmax-attention';
import { setThreads } from '../../lib/tensor/device';
import type { DType } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, seeded, tensorOf, ulp } from '../support/arrays';
import { onCuda } from '../support/device';
import { PagedCache, type Prompt, promptOf, type Shape, slice } from '../support/paged-cache';

const base: Shape = { heads: 2, kvHeads: 1, width: 16, pageTokens: 16, tablePages: 40 };
const bfloat16: Shape = { ...base, dtype: 'bfloat16', cacheDtype: 'bfloat16' };
const float16: Shape = { ...base, dtype: 'float16', cacheDtype: 'float16' };
// Lengths of the sequences, and where each is cut into slices.
const cases: [string, Shape, number[], number[]][] = [
  ['one token', base, [1], []],
  ['63 tokens', base, [63], []],
  ['64 tokens in two slices', base, [64], [63]],
  ['65 tokens, pages of 1', { ...base, pageTokens: 1, tablePages: 65 }, [65], [1, 2]],
  ['across spans of 256 keys', { ...base, width: 8 }, [530], [255, 256, 257, 511]],
  ['one long decode', { ...base, heads: 1, width: 8 }, [300], Array.from({ length: 40 }, (_, i) => 260 + i)],
  ['lengths that differ', base, [5, 301, 1, 64], [4, 70, 300]],
  ['a group of 7', { ...base, heads: 14, kvHeads: 2 }, [40, 70], [33]],
  ['many query heads of one', { ...base, heads: 100 }, [3], [2]],
  ['no grouping', { ...base, heads: 3, kvHeads: 3 }, [130, 9], [100]],
  ['width 1', { ...base, width: 1 }, [20], [19]],
  ['width 37', { ...base, width: 37 }, [270], [200]],
  ['width 256', { ...base, width: 256, pageTokens: 64, tablePages: 5 }, [80], [64, 79]],
  ['window 1', { ...base, window: 1, tablePages: 8 }, [100], [50, 99]],
  ['window 5', { ...base, window: 5, tablePages: 8 }, [100], [50, 51]],
  ['window 64 in a ring', { ...base, window: 64, tablePages: 10 }, [700], [80, 160, 240, 320, 400, 480, 560, 640]],
  ['window 300, no grouping', { ...base, kvHeads: 2, width: 8, window: 300 }, [560], [300, 555]],
  ['window beyond the text', { ...base, window: 10_000 }, [90], [64]],
  ['sinks', { ...base, heads: 6, kvHeads: 2, sinks: true }, [70, 3], [64]],
  ['ALiBi', { ...base, heads: 6, kvHeads: 2, alibi: true }, [300], [256]],
  ['all at once', { ...base, heads: 6, kvHeads: 3, sinks: true, alibi: true, window: 100 }, [300, 20], [256]],
  ['a learned bias by distance', { ...base, heads: 6, kvHeads: 2, biasDistances: 40 }, [300, 7], [256, 290]],
  ['a bias of one distance', { ...base, heads: 3, biasDistances: 1 }, [20], [18]],
  ['a bias of more distances than tokens', { ...base, width: 8, biasDistances: 1000 }, [270], [200, 255]],
  [
    'a bias in a window, with sinks and ALiBi',
    { ...base, heads: 6, kvHeads: 3, window: 100, biasDistances: 64, sinks: true, alibi: true },
    [300, 20],
    [256],
  ],
  ['bfloat16, a bias', { ...bfloat16, heads: 8, kvHeads: 2, width: 64, biasDistances: 90 }, [200, 70, 12], [130, 199]],
  ['float16, width 128, a bias', { ...float16, heads: 4, width: 128, biasDistances: 30 }, [140], [65, 139]],
  [
    'bfloat16, width 256, a bias in a window',
    { ...bfloat16, heads: 4, width: 256, pageTokens: 64, tablePages: 6, window: 100, biasDistances: 100 },
    [230, 47],
    [150, 229],
  ],
  ['sink tokens', { ...base, window: 20, sinkTokens: 4, tablePages: 9 }, [130, 22], [60, 61, 62, 129]],
  ['sink tokens in many pages', { ...base, window: 9, sinkTokens: 70, tablePages: 13 }, [230], [80, 150, 229]],
  ['more sink tokens than spans', { ...base, width: 8, window: 40, sinkTokens: 290, tablePages: 60 }, [700], [690]],
  ['sink tokens, pages of 1', { ...base, pageTokens: 1, window: 5, sinkTokens: 3, tablePages: 30 }, [60], [20, 40]],
  [
    'sink tokens, learned sinks, a bias and ALiBi',
    { ...base, heads: 6, kvHeads: 3, window: 33, sinkTokens: 10, biasDistances: 64, sinks: true, alibi: true },
    [150, 20],
    [140],
  ],
  [
    'bfloat16, sink tokens in a ring',
    { ...bfloat16, heads: 8, kvHeads: 2, width: 64, window: 70, sinkTokens: 4, tablePages: 14 },
    [330, 47],
    [100, 200, 300, 301, 302, 329],
  ],
  [
    'bfloat16, width 256, 150 sink tokens',
    { ...bfloat16, heads: 4, width: 256, pageTokens: 64, tablePages: 7, window: 30, sinkTokens: 150 },
    [330],
    [170, 320, 329],
  ],
  [
    'float16, width 128, sink tokens and a bias',
    { ...float16, heads: 4, width: 128, window: 100, sinkTokens: 80, biasDistances: 30 },
    [250],
    [240, 249],
  ],
  ['a bfloat16 cache', { ...base, cacheDtype: 'bfloat16' }, [300], [256]],
  ['a float16 cache', { ...base, cacheDtype: 'float16' }, [300], [256]],
  ['bfloat16', { ...base, dtype: 'bfloat16', cacheDtype: 'bfloat16' }, [300], [256]],
  ['float16', { ...base, dtype: 'float16', cacheDtype: 'float32', width: 12 }, [70], [64]],
  ['bfloat16, width 64', { ...bfloat16, heads: 8, kvHeads: 2, width: 64 }, [200, 70, 12], [130, 131, 199]],
  ['bfloat16, width 80, ALiBi', { ...bfloat16, width: 80, alibi: true }, [150], [100, 149]],
  ['bfloat16, width 256', { ...bfloat16, heads: 4, kvHeads: 2, width: 256, pageTokens: 64 }, [140], [90, 91]],
  [
    'bfloat16, width 256 in a window',
    { ...bfloat16, heads: 4, width: 256, pageTokens: 64, tablePages: 6, window: 100 },
    [230, 47],
    [150, 222, 223, 229],
  ],
  ['float16, width 192', { ...base, dtype: 'float16', cacheDtype: 'float16', width: 192, pageTokens: 8 }, [70], [66]],
  ['bfloat16, width 128, slices of 16', { ...bfloat16, heads: 4, width: 128 }, [260, 129], [228, 244]],
  ['bfloat16, a long decode', { ...bfloat16, heads: 1, width: 64, tablePages: 70 }, [1070], [1065, 1066]],
  ['bfloat16, 16 query heads of one', { ...bfloat16, heads: 16, width: 64 }, [120], [100, 101, 103, 107, 117]],
  ['bfloat16, a short window', { ...bfloat16, width: 32, pageTokens: 8, tablePages: 16, window: 9 }, [150], [75, 77]],
  [
    'float16, width 128 in a window with sinks',
    { ...base, dtype: 'float16', cacheDtype: 'float16', heads: 6, kvHeads: 2, width: 128, window: 90, sinks: true },
    [230],
    [80, 160, 229],
  ],
];

const bytes = (array: ArrayBufferView) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
const same = (a: readonly ArrayBufferView[], b: readonly ArrayBufferView[]) =>
  a.length === b.length && a.every((part, i) => bytes(part).equals(bytes(b[i]!)));

test.each(cases)('%s', async (_, shape, lengths, cuts) => {
  const cache = new PagedCache(shape, lengths.length);
  await cache.written;
  const prompts = lengths.map((length, row) => promptOf(shape, length, row + 1));
  const dtype = shape.dtype ?? 'float32';
  const names = ['out', 'rowMax', 'rowSum'] as const;
  // Over all slices: actual values, float64 ones, and those of the plain float32 formula, whose error is the measure.
  const all = { actual: [], expected: [], plain: [] } as Record<string, Record<(typeof names)[number], NdArray>[]>;
  for (const [from, to] of [0, ...cuts].map((cut, i) => [cut, cuts[i] ?? Number.POSITIVE_INFINITY] as const)) {
    const pieces = lengths.flatMap((length, row) => {
      const end = Math.min(to, length);
      return from < end ? [{ row, position: from, prompt: slice(prompts[row]!, from, end) }] : [];
    });
    const { out, rowMax, rowSum } = cache.attend(pieces);
    all.expected!.push(cache.expected(pieces));
    all.plain!.push(cache.expected(pieces, Float32Array));
    expect(out).toMatchObject({ shape: all.expected!.at(-1)!.out.shape, dtype });
    all.actual!.push({ out: await readNd(out), rowMax: await readNd(rowMax!), rowSum: await readNd(rowSum!) });
  }
  for (const name of names) {
    const joined = (of: string) => {
      const values = all[of]!.flatMap((call) => [...call[name].data]);
      return nd([values.length], values);
    };
    const error = (of: string) => relativeError(joined(of), joined('expected'));
    expect(error('actual')).toBeLessThan(2 * error('plain') + 4 * ulp[name === 'out' ? dtype : 'float32']);
  }
  expect(same([(await readNd(cache.pages)).data], [cache.expectedPages.data])).toBe(true);
});

// The host knows how many tokens there are, not how few of them a row has.
test('a few tokens after a long text, and many of no sequence', async () => {
  const shape: Shape = { ...bfloat16, heads: 8, kvHeads: 8, width: 64, pageTokens: 64, tablePages: 34 };
  const past = 2040;
  const own = 70;
  const tokens = 1300;
  const text = promptOf(shape, past + tokens, 1);
  const cache = new PagedCache(shape, 1);
  await cache.written;
  await cache.hold([slice(text, 0, past)]);
  const piece = { row: 0, position: past, prompt: slice(text, past, past + own) };
  const [expected, plain] = [cache.expected([piece]), cache.expected([piece], Float32Array)];
  const input = cache.input([{ ...piece, prompt: slice(text, past, past + tokens) }]);
  const { record } = packedSequences([own], { positions: [past] });
  const { out } = softmaxAttention({ ...input, sequences: new Sequences({ ...record, tokens }) });
  const values = (await readNd(out)).data;
  const size = own * shape.heads * shape.width;
  const error = relativeError(nd(expected.out.shape, values.subarray(0, size)), expected.out);
  expect(error).toBeLessThan(2 * relativeError(plain.out, expected.out) + 4 * ulp.bfloat16);
  expect(values.subarray(size).every((x) => x === 0)).toBe(true);
});

describe.each<[string, Shape]>([
  ['width 64', { ...bfloat16, heads: 8, kvHeads: 2, width: 64, tablePages: 130 }],
  ['width 128 in a window with sinks', { ...bfloat16, width: 128, tablePages: 130, window: 2050, sinks: true }],
  ['width 256', { ...bfloat16, width: 256, pageTokens: 64, tablePages: 33 }],
])('a few tokens after a long text, bfloat16, %s', (_, shape) => {
  const pasts = [2040, 90, 0];
  const counts = [40, 3, 35];
  const prompts = pasts.map((past, row) => promptOf(shape, past + counts[row]!, row + 1));
  const piece = (row: number, to = 0) => {
    const position = pasts[row]!;
    return { row: to, position, prompt: slice(prompts[row]!, position, position + counts[row]!) };
  };
  const held = async (rows: number[]) => {
    const cache = new PagedCache(shape, rows.length);
    await cache.written;
    await cache.hold(rows.map((row) => slice(prompts[row]!, 0, pasts[row]!)));
    return cache;
  };

  test('agrees with the reference', async () => {
    const cache = await held([0, 1, 2]);
    const pieces = prompts.map((_, row) => piece(row, row));
    const [expected, plain] = [cache.expected(pieces), cache.expected(pieces, Float32Array)];
    const actual = cache.attend(pieces);
    for (const name of ['out', 'rowMax', 'rowSum'] as const) {
      const error = relativeError(await readNd(actual[name]!), expected[name]);
      const dtype = name === 'out' ? shape.dtype! : 'float32';
      expect(error).toBeLessThan(2 * relativeError(plain[name], expected[name]) + 4 * ulp[dtype]);
    }
  });

  test('has the same bits alone and among others', async () => {
    const among = await held([2, 0, 1]);
    const { out } = among.attend([piece(2, 0), piece(0, 1), piece(1, 2)]);
    const alone = (await held([0])).attend([piece(0)]).out;
    const size = shape.heads * shape.width;
    const own = (await out.read()).subarray(counts[2]! * size, (counts[2]! + counts[0]!) * size);
    expect(same([own], [await alone.read()])).toBe(true);
  });
});

test('dropped sequences, and tokens of none, are 0 and write nothing', async () => {
  const cache = new PagedCache(base, 2);
  await cache.written;
  const prompt = promptOf(base, 20, 1);
  const pieces = [
    { row: -1, position: 7, prompt: slice(prompt, 0, 3) },
    { row: 1, position: 0, prompt: slice(prompt, 3, 20) },
  ];
  const { out, rowMax, rowSum } = cache.attend(pieces);
  const expected = cache.expected(pieces);
  const values = await readNd(out);
  expect(relativeError(values, expected.out)).toBeLessThan(4 * ulp.float32);
  expect(values.data.subarray(0, 3 * 2 * 16).every((x) => x === 0)).toBe(true);
  expect((await readNd(rowMax!)).data.subarray(0, 6)).toEqual(new Float64Array(6).fill(Number.NEGATIVE_INFINITY));
  expect((await readNd(rowSum!)).data.subarray(0, 6)).toEqual(new Float64Array(6));
  expect(same([(await readNd(cache.pages)).data], [cache.expectedPages.data])).toBe(true);
});

test('a fused projection is read through strided views', async () => {
  const { heads, width } = base;
  const [T, stride] = [33, (heads + 2) * width + 3];
  const fused = tensorOf(seeded(5).normal([T, stride]), 'float32');
  const part = (count: number, head: number) => fused.view([T, count, width], head * width, stride);
  const compact = (count: number, head: number) =>
    part(count, head)
      .read()
      .then((data) => nd([T, count, width], data));
  const prompt = { q: await compact(heads, 0), k: await compact(1, heads), v: await compact(1, heads + 1) };
  const [cache, other] = [new PagedCache(base, 1), new PagedCache(base, 1)];
  await Promise.all([cache.written, other.written]);
  const piece = [{ row: 0, position: 0, prompt }];
  const input = { ...cache.input(piece), q: part(heads, 0), k: part(1, heads), v: part(1, heads + 1) };
  expect(await softmaxAttention(input).out.read()).toEqual(await other.attend(piece).out.read());
});

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

test('a NaN key or value reaches only the rows that see it', async () => {
  const shape: Shape = { heads: 1, kvHeads: 1, width: 16, pageTokens: 16, tablePages: 20, window: 40 };
  const cache = new PagedCache(shape, 1);
  await cache.written;
  const prompt = promptOf(shape, 300, 1);
  prompt.k.data[100 * 16] = Number.NaN;
  prompt.v.data[200 * 16] = Number.NaN;
  const { data } = await readNd(cache.attend([{ row: 0, position: 0, prompt }]).out);
  const spoilt = Array.from({ length: 300 }, (_, t) => data.subarray(t * 16, (t + 1) * 16).some(Number.isNaN));
  expect(spoilt).toEqual(Array.from({ length: 300 }, (_, t) => (t >= 100 && t < 140) || (t >= 200 && t < 240)));
});

describe('refuses', () => {
  const zeros = (shape: number[], dtype: DType = 'float32') => Tensor.zeros({ dtype, shape });
  const ints = (...values: number[]) => Tensor.from(values, { dtype: 'int32', shape: [values.length] });
  const good = (): SoftmaxAttentionInput<DType> => ({
    q: zeros([4, 4, 8]),
    k: zeros([4, 2, 8]),
    v: zeros([4, 2, 8]),
    pages: Tensor.make({ dtype: 'float32', shape: [6, 2, 2, 2, 8] }, true, true),
    pageTable: ints(0, 1, 2, 3, 4, 5).view([2, 3], 0, 3),
    tableRows: ints(0, 1),
    sequences: uniformSequences(2, 2),
    scale: 1,
  });
  type Change = Partial<SoftmaxAttentionInput<DType>>;

  test.each<[string, () => Change, string, RegExp]>([
    ['q of another rank', () => ({ q: zeros([4, 32]) }), 'ERR_SHAPE', /q must be \[T, Hq, D\], got \[4, 32\]/],
    ['q of integers', () => ({ q: zeros([4, 4, 8], 'int32') }), 'ERR_DTYPE', /q must be float32 or bfloat16/],
    ['pages of integers', () => ({ pages: zeros([6, 2, 2, 2, 8], 'int8') }), 'ERR_DTYPE', /pages must be float32/],
    ['heads that do not divide', () => ({ q: zeros([4, 3, 8]) }), 'ERR_ARGUMENT', /a multiple of Hkv = 2 heads, got 3/],
    ['no key heads', () => ({ k: zeros([4, 0, 8]), v: zeros([4, 0, 8]) }), 'ERR_ARGUMENT', /multiple of Hkv = 0/],
    ['k of other tokens', () => ({ k: zeros([3, 2, 8]) }), 'ERR_SHAPE', /k must be \[T, Hkv, D\] = \[4, 2, 8\]/],
    ['k of another width', () => ({ k: zeros([4, 2, 4]) }), 'ERR_SHAPE', /k must be \[T, Hkv, D\] = \[4, 2, 8\]/],
    ['v of other heads', () => ({ v: zeros([4, 1, 8]) }), 'ERR_SHAPE', /v must be \[T, Hkv, D\] = \[4, 2, 8\]/],
    [
      'v of another width',
      () => ({ v: zeros([4, 2, 4]) }),
      'ERR_UNSUPPORTED',
      /v must be as wide as q and k, 8, got 4/,
    ],
    ['pages without two parts', () => ({ pages: zeros([6, 1, 2, 2, 8]) }), 'ERR_SHAPE', /pages must be \[pages, parts/],
    ['pages of no tokens', () => ({ pages: zeros([6, 2, 0, 2, 8]) }), 'ERR_ARGUMENT', /at least one token each/],
    [
      'a table of no pages',
      () => ({ pageTable: zeros([2, 0], 'int32') as Tensor<'int32'> }),
      'ERR_ARGUMENT',
      /one page/,
    ],
    [
      'a float table',
      () => ({ pageTable: zeros([2, 3]) as Tensor as Tensor<'int32'> }),
      'ERR_DTYPE',
      /pageTable must be/,
    ],
    ['too few table rows', () => ({ tableRows: ints(0) }), 'ERR_SHAPE', /tableRows must be \[N\] = \[2\], got \[1\]/],
    ['other tokens', () => ({ sequences: uniformSequences(2, 1) }), 'ERR_ARGUMENT', /must have T = 4 tokens, got 2/],
    ['a sink too few', () => ({ sinks: zeros([3]) as Tensor<'float32'> }), 'ERR_SHAPE', /sinks must be \[Hq\] = \[4\]/],
    [
      'slopes in half',
      () => ({ alibiSlopes: zeros([4], 'float16') as Tensor as Tensor<'float32'> }),
      'ERR_DTYPE',
      /alibi/,
    ],
    ['a bias of other heads', () => ({ relativeBias: zeros([3, 5]) as Tensor<'float32'> }), 'ERR_SHAPE', /= \[4, 5\]/],
    ['a bias of one axis', () => ({ relativeBias: zeros([4]) as Tensor<'float32'> }), 'ERR_SHAPE', /must be \[Hq, R\]/],
    ['a bias of no distance', () => ({ relativeBias: zeros([4, 0]) as Tensor<'float32'> }), 'ERR_ARGUMENT', /distance/],
    [
      'a bias in half',
      () => ({ relativeBias: zeros([4, 5], 'float16') as Tensor as Tensor<'float32'> }),
      'ERR_DTYPE',
      /relativeBias must be float32/,
    ],
    ['a scale that is not finite', () => ({ scale: Number.NaN }), 'ERR_ARGUMENT', /scale must be a finite number/],
    [
      'sink tokens without a window',
      () => ({ sinkTokens: 2 }),
      'ERR_ARGUMENT',
      /0 without a window, got 2 with window 0/,
    ],
    ['half a sink token', () => ({ window: 2, sinkTokens: 0.5 }), 'ERR_ARGUMENT', /sinkTokens must be .*, got 0.5/],
    ['sink tokens that fill the table', () => ({ window: 1, sinkTokens: 5 }), 'ERR_ARGUMENT', /the 3 pages .*, got 3/],
    [
      'positions in the cache',
      () => ({ window: 2, sinkTokens: 1, cachePositions: true }) as Change,
      'ERR_UNSUPPORTED',
      /take a second query for the sinks/,
    ],
    ['half a window', () => ({ window: 1.5 }), 'ERR_ARGUMENT', /window must be a whole number from 0, got 1.5/],
  ])('%s', (_, change, code, message) => {
    expect(softmaxAttention(good()).out.shape).toEqual([4, 4, 8]);
    const call = () => softmaxAttention({ ...good(), ...change() });
    expect(call).toThrow(LinattnError);
    expect(call).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test.each<[string, (input: SoftmaxAttentionInput<DType>) => void, RegExp]>([
    [
      'a table row that is not there',
      (x) => x.tableRows.write(Int32Array.of(0, 2)),
      /tableRows\[1\] must be in \[-1, 2\)/,
    ],
    [
      'a page that is not there',
      (x) => x.pageTable.write(Int32Array.of(6), 3),
      /pageTable\[1\]\[0\] must be a page in/,
    ],
    ['a token without a page', (x) => x.pageTable.write(Int32Array.of(-1), 3), /pageTable\[1\]\[0\] .*, got -1/],
    ['a past without a page', (x) => sixth(x, -1), /pageTable\[1\]\[1\] .* of sequence 1, got -1/],
    ['more tokens than pages', (x) => x.sequences.positions.write(Int32Array.of(0, 5)), /needs 4 pages .* has 3 a row/],
    ['a position before 0', (x) => x.sequences.positions.write(Int32Array.of(0, -1)), /positions\[1\] must not be neg/],
    ['offsets that fall', (x) => x.sequences.offsets.write(Int32Array.of(0, 3, 2)), /offsets\[2\] must be in/],
    ['offsets beyond the tokens', (x) => x.sequences.offsets.write(Int32Array.of(0, 2, 5)), /offsets\[2\] must be in/],
  ])('%s, when it runs, and writes nothing', async (_, spoil, message) => {
    const input = { ...good(), k: tensorOf(seeded(1).normal([4, 2, 8]), 'float32') };
    spoil(input);
    const { out } = softmaxAttention(input);
    const error = await out.read().catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ERR_ARGUMENT', op: 'softmaxAttention' });
    // A GPU names the tensor, skips what is wrong and does the rest.
    expect((error as Error).message).toMatch(onCuda ? /tableRows|pageTable|positions|offsets/ : message);
    if (!onCuda) expect(await input.pages.read()).toEqual(new Float32Array(6 * 2 * 2 * 2 * 8));
  });

  // The page of the second sequence's tokens 2 and 3 while it writes 4 and 5.
  function sixth(input: SoftmaxAttentionInput<DType>, page: number): void {
    input.sequences.positions.write(Int32Array.of(0, 4));
    input.pageTable.write(Int32Array.of(page), 4);
  }

  test('sink tokens whose page is gone', async () => {
    const input = { ...good(), window: 1, sinkTokens: 1 };
    sixth(input, 4);
    expect((await softmaxAttention(input).out.read()).length).toBe(4 * 4 * 8);
    input.pageTable.write(Int32Array.of(-1), 3);
    const error = await softmaxAttention(input)
      .out.read()
      .catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/pageTable\[/) });
  });

  test('but not a missing page that the window has left behind', async () => {
    const input = { ...good(), window: 2 };
    sixth(input, 4);
    input.pageTable.write(Int32Array.of(-1), 3);
    expect(await softmaxAttention(input).out.read()).toEqual(new Float32Array(4 * 4 * 8));
  });
});

test('cost counts scores, and the visible cache once', () => {
  const sizes = { tokens: 2, position: 10, heads: 4, kvHeads: 2, width: 8 };
  const each = { bytesPerValue: 4, bytesPerCached: 2 };
  const all = softmaxAttentionCost(sizes, each);
  expect(all.bytes).toBe(2 * 8 * ((4 + 2) * 2 * 4 + 2 * (12 + 2) * 2));
  expect(all.scores).toBe(4 * (11 + 12));
  expect(all.flops).toBe(all.scores * (4 * 8 + 25));
  const windowed = softmaxAttentionCost({ ...sizes, window: 3 }, each);
  expect(windowed.flops).toBe(4 * (3 + 3) * (4 * 8 + 25));
  expect(windowed.bytes).toBe(2 * 8 * ((4 + 2) * 2 * 4 + 2 * (4 + 2) * 2));
  const sunk = softmaxAttentionCost({ ...sizes, window: 3, sinkTokens: 4 }, each);
  expect(sunk.flops).toBe(4 * (7 + 7) * (4 * 8 + 25));
  expect(sunk.bytes).toBe(2 * 8 * ((4 + 2) * 2 * 4 + 2 * (8 + 2) * 2));
});
