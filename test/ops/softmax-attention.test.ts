// softmaxAttention against its float64 reference. Its bits: softmax-attention-bits.test.ts; what it refuses:
// softmax-attention-arguments.test.ts.
import { type NdArray, nd } from '../../lib/ops/reference';
import { packedSequences, Sequences } from '../../lib/ops/sequences';
import { softmaxAttention, softmaxAttentionCost } from '../../lib/ops/softmax-attention';
import { readNd, relativeError, seeded, tensorOf, ulp } from '../support/arrays';
import { base, bfloat16, float16, PagedCache, promptOf, type Shape, slice } from '../support/paged-cache';
import { same } from '../support/same-bytes';

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
