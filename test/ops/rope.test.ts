// rope against its float64 reference, and the laws of a rotation.
import { LinattnError } from '../../lib/errors';
import { nd } from '../../lib/ops/reference';
import { type RopePairing, rope, ropeCost, ropeInverseFrequencies, ropeReference } from '../../lib/ops/rope';
import { packedSequences, uniformSequences } from '../../lib/ops/sequences';
import { setThreads } from '../../lib/tensor/device';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';

const frequenciesOf = (values: ArrayLike<number>) =>
  Tensor.from(Float32Array.from(values), { dtype: 'float32', shape: [values.length] });

// T, H, D, rotary, position of the first token
const sizes: [number, number, number, number, number][] = [
  [1, 1, 2, 2, 0],
  [1, 3, 256, 64, 1_000_000],
  [7, 2, 64, 64, 65_531],
  [63, 1, 130, 130, 262_100],
  [64, 4, 40, 34, 3],
  [65, 2, 37, 6, 999_900],
  [3, 2, 16, 0, 5],
  [0, 2, 16, 8, 5],
];
const dtypes = ['float32', 'bfloat16', 'float16'] as const;
const pairings: RopePairing[] = ['half', 'interleaved'];

describe.each(dtypes)('%s', (dtype) => {
  describe.each(pairings)('%s', (pairing) => {
    test.each(sizes)('T %i, H %i, D %i, rotary %i at %i', async (T, H, D, rotary, position) => {
      const x = rounded(seeded(T + D).normal([T, H, D]), dtype);
      const inverse = ropeInverseFrequencies(10_000, rotary);
      const sequences = packedSequences([T], { positions: [position] });
      const out = rope({ x: tensorOf(x, dtype), inverseFrequencies: frequenciesOf(inverse), sequences, pairing });
      expect(out).toMatchObject({ shape: [T, H, D], dtype });
      const positions = Array.from({ length: T }, (_, t) => position + t);
      const expected = ropeReference({ x, inverseFrequencies: nd([rotary / 2], inverse), positions }, pairing);
      expect(relativeError(await readNd(out), expected)).toBeLessThan(2 * ulp[dtype]);
    });
  });
});

test('inverse frequencies have the bits of torch 2.13 (Hugging Face default RoPE)', () => {
  const qwen = ropeInverseFrequencies(1e7, 64);
  expect(qwen).toHaveLength(32);
  expect([...qwen.subarray(0, 4), qwen[31]]).toEqual([
    1, 0.6042963862419128, 0.36517414450645447, 0.22067339718341827, 1.6548170833630138e-7,
  ]);
  const llama = ropeInverseFrequencies(500_000, 64);
  expect([...llama.subarray(1, 4), llama[31]]).toEqual([
    0.663601279258728, 0.44036662578582764, 0.2922278344631195, 3.01385807688348e-6,
  ]);
});

test('q.k after rope depends on the distance alone', async () => {
  const [q, k] = [seeded(1).normal([1, 1, 64]), seeded(2).normal([1, 1, 64])];
  const inverseFrequencies = frequenciesOf(ropeInverseFrequencies(100, 64));
  const turned = async (x: typeof q, position: number) => {
    const sequences = packedSequences([1], { positions: [position] });
    return readNd(rope({ x: tensorOf(x, 'float32'), inverseFrequencies, sequences, pairing: 'half' }));
  };
  const product = async (i: number, j: number) => {
    const [a, b] = [await turned(q, i), await turned(k, j)];
    return a.data.reduce((sum, value, d) => sum + value * b.data[d]!, 0);
  };
  const far = await product(1_007, 1_000);
  expect(Math.abs(far - (await product(7, 0)))).toBeLessThan(1e-3);
  expect(Math.abs(far - (await product(9, 0)))).toBeGreaterThan(0.1);
});

test('same bits in any batch, slicing and number of threads, from a strided view', async () => {
  const [T, H, D] = [70, 3, 48];
  const fused = seeded(3).normal([T, H * D + 13]);
  const tensor = tensorOf(fused, 'float32');
  const inverseFrequencies = frequenciesOf(ropeInverseFrequencies(10_000, 32));
  const run = (from: number, lengths: number[], positions: number[]) => {
    const x = tensor.view([lengths.reduce((sum, n) => sum + n, 0), H, D], from * (H * D + 13) + 5, H * D + 13);
    return rope({ x, inverseFrequencies, sequences: packedSequences(lengths, { positions }), pairing: 'half' }).read();
  };
  const whole = await run(0, [T], [900]);
  const parts = [await run(0, [1], [900]), await run(1, [32, 37], [901, 933])];
  expect(parts.flatMap((part) => [...part])).toEqual([...whole]);
  try {
    setThreads(1);
    expect(await run(0, [T], [900])).toEqual(whole);
    setThreads(3);
    expect(await run(0, [T], [900])).toEqual(whole);
  } finally {
    setThreads(2);
  }
});

test('tokens of no sequence are copied', async () => {
  const x = rounded(seeded(4).normal([3, 1, 4]), 'float32');
  const some = packedSequences([1, 2], { positions: [9, 0] });
  some.offsets.write(Int32Array.of(0, 1, 1));
  const inverseFrequencies = frequenciesOf([0.5, 0.1]);
  const out = await readNd(rope({ x: tensorOf(x, 'float32'), inverseFrequencies, sequences: some, pairing: 'half' }));
  expect(out.data.slice(4)).toEqual(x.data.slice(4));
  expect(out.data.slice(0, 4)).not.toEqual(x.data.slice(0, 4));
});

describe('refuses', () => {
  const good = () => ({
    x: Tensor.zeros({ dtype: 'float32', shape: [4, 2, 8] }) as Tensor,
    inverseFrequencies: frequenciesOf([1, 0.1]),
    sequences: uniformSequences(2, 2),
    pairing: 'half' as RopePairing,
  });
  test.each<[string, () => Partial<ReturnType<typeof good>>, string, RegExp]>([
    [
      'another rank',
      () => ({ x: Tensor.zeros({ dtype: 'float32', shape: [4, 16] }) }),
      'ERR_SHAPE',
      /x must be \[T, H, D\]/,
    ],
    ['integers', () => ({ x: Tensor.zeros({ dtype: 'int32', shape: [4, 2, 8] }) }), 'ERR_DTYPE', /x must be float32/],
    [
      'frequencies in half precision',
      () => ({ inverseFrequencies: Tensor.zeros({ dtype: 'float16', shape: [2] }) as unknown as Tensor<'float32'> }),
      'ERR_DTYPE',
      /inverseFrequencies must be float32/,
    ],
    [
      'more pairs than the head has',
      () => ({ inverseFrequencies: frequenciesOf([1, 1, 1, 1, 1]) }),
      'ERR_ARGUMENT',
      /at most D = 8/,
    ],
    ['other tokens', () => ({ sequences: uniformSequences(1, 3) }), 'ERR_ARGUMENT', /must have T = 4 tokens, got 3/],
    [
      'another pairing',
      () => ({ pairing: 'halves' as RopePairing }),
      'ERR_ARGUMENT',
      /half or interleaved, got halves/,
    ],
  ])('%s', (_, change, code, message) => {
    expect(rope(good()).shape).toEqual([4, 2, 8]);
    const call = () => rope({ ...good(), ...change() });
    expect(call).toThrow(LinattnError);
    expect(call).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
  });

  test('offsets beyond the tokens, when it runs', async () => {
    const input = good();
    input.sequences.offsets.write(Int32Array.of(0, 2, 5));
    await expect(rope(input).read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'rope' });
  });
});

test('cost counts what is read and written', () => {
  const cost = ropeCost({ tokens: 2, heads: 3, width: 8, rotary: 4 }, 2);
  expect(cost.bytes).toBe(2 * 2 * 3 * 8 * 2);
  expect(cost.flops).toBeGreaterThan(0);
});
