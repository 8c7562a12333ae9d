// What softmaxAttention refuses, at the call and when it runs.
import { LinattnError } from '../../lib/errors';
import { uniformSequences } from '../../lib/ops/sequences';
import { type SoftmaxAttentionInput, softmaxAttention } from '../../lib/ops/softmax-attention';
import type { DType } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';
import { seeded, tensorOf } from '../support/arrays';
import { onCuda } from '../support/device';

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
