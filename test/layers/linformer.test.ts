// Linformer against the `linformer` package and a float64 oracle; the block-causal variant against its definition.
import { BlockCausalLinformer } from '../../lib/layers/block-causal-linformer';
import { Linformer } from '../../lib/layers/linformer';
import { matmulReference } from '../../lib/ops/matmul';
import { type NdArray, nd } from '../../lib/ops/reference';
import type { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { readGolden } from '../support/golden';
import { bitsOf } from '../support/linear-attention';

const float32 = (array: NdArray) => tensorOf(array, 'float32');
const shaped = (array: NdArray, ...shape: number[]): NdArray => nd(shape, array.data);

/** softmax(q K' / sqrt(D)) V for each query over its own list of keys: [T, H, D] against lists of rows [H, D]. */
function attention(
  q: NdArray,
  seen: (t: number, h: number) => { keys: Float64Array[]; values: Float64Array[] },
): NdArray {
  const [T, H, D] = q.shape as [number, number, number];
  const out = nd(q.shape);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      const at = (t * H + h) * D;
      const { keys, values } = seen(t, h);
      const scores = keys.map((key) => key.reduce((sum, x, d) => sum + x * q.data[at + d]!, 0) / Math.sqrt(D));
      const top = Math.max(...scores);
      const weights = scores.map((score) => Math.exp(score - top));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      for (let d = 0; d < D; d++) {
        out.data[at + d] = weights.reduce((sum, weight, j) => sum + weight * values[j]![d]!, 0) / total;
      }
    }
  }
  return out;
}

/** The mixtures of tokens [from, to) of one head: sum over t of E[t - from, slot] x[t]. */
function mixtures(E: NdArray, x: NdArray, h: number, from: number, to: number): Float64Array[] {
  const [, heads, k] = E.shape as [number, number, number];
  const [, H, D] = x.shape as [number, number, number];
  const own = heads === 1 ? 0 : h;
  return Array.from({ length: k }, (_, slot) => {
    const sum = new Float64Array(D);
    for (let t = from; t < to; t++) {
      const weight = E.data[((t - from) * heads + own) * k + slot]!;
      for (let d = 0; d < D; d++) sum[d]! += weight * x.data[(t * H + h) * D + d]!;
    }
    return sum;
  });
}

describe('the package linformer', () => {
  const golden = readGolden('mechanisms/linformer');
  const array = (name: string): NdArray => nd(golden.float32(name).shape, golden.float32(name).data);
  const [heads, D] = [4, 8];

  test.each(['headwise', 'shared', 'one_head'])('%s', async (name) => {
    const shared = name === 'shared';
    const kvHeads = name === 'one_head' ? 1 : heads;
    const projected = (x: NdArray, part: string, count: number) =>
      float32(shaped(matmulReference(x, array(`${name}.${part}.weight`)), x.shape[0]!, count, D));
    const rowsOf = (part: string) => float32(shaped(array(`${name}.${part}`), 24, 1, 8));
    const layer = new Linformer({
      keyProjection: rowsOf('proj_k'),
      valueProjection: shared ? undefined : rowsOf('proj_v'),
    });
    const compare = async (out: Tensor, wanted: NdArray) => {
      const flat = shaped(await readNd(out), wanted.shape[0]!, heads * D);
      const bias = array(`${name}.to_out.bias`);
      const made = matmulReference(flat, array(`${name}.to_out.weight`), bias);
      expect(relativeError(made, wanted)).toBeLessThanOrEqual(32 * ulp.float32);
    };
    const memory = (x: NdArray) => ({
      k: projected(x, 'to_k', kvHeads),
      v: projected(x, shared ? 'to_k' : 'to_v', kvHeads),
    });
    for (const length of [24, 13]) {
      const x = array(`${name}.x_${length}`);
      const out = layer.forward({ q: projected(x, 'to_q', heads), ...memory(x), lengths: [length] });
      await compare(out, array(`${name}.out_${length}`));
    }
    const held = layer.createMemory({ slots: 1, heads: kvHeads, keyWidth: D, valueWidth: D });
    layer.remember({ ...memory(array('context')), lengths: [17] }, held);
    const asked = layer.recall({ q: projected(array(`${name}.x_24`), 'to_q', heads), lengths: [24] }, held);
    await compare(asked, array(`${name}.cross`));
  });
});

const random = seeded(4);
const [H, D, longest, k] = [2, 16, 60, 24];
const arrays = (T: number) => ({
  q: rounded(random.normal([T, H, D]), 'bfloat16'),
  k: rounded(random.normal([T, H, D]), 'bfloat16'),
  v: rounded(random.normal([T, H, D]), 'bfloat16'),
});
const cut = (x: NdArray, from: number, to: number): NdArray =>
  nd([to - from, ...x.shape.slice(1)], x.data.subarray(from * H * D, to * H * D));

describe('Linformer', () => {
  const E = rounded(random.normal([longest, H, k], 0.3), 'float32');
  const F = rounded(random.normal([longest, H, k], 0.3), 'float32');
  const layer = new Linformer({ keyProjection: float32(E), valueProjection: float32(F) });
  const x = arrays(50);

  test.each(['float32', 'bfloat16', 'float16'] as const)(
    'a projection of each head, packed sequences, %s',
    async (dtype) => {
      const of = (array: NdArray) => tensorOf(array, dtype);
      const out = await readNd(layer.forward({ q: of(x.q), k: of(x.k), v: of(x.v), lengths: [30, 0, 20] }));
      const exact = attention(x.q, (t, h) => {
        const [from, to] = t < 30 ? [0, 30] : [30, 50];
        return { keys: mixtures(E, x.k, h, from!, to!), values: mixtures(F, x.v, h, from!, to!) };
      });
      const limit = 2 * relativeError(rounded(exact, dtype), exact) + 32 * ulp.float32;
      expect(relativeError(out, exact)).toBeLessThanOrEqual(limit);
    },
  );

  test('a memory in slices is the same bits as at once', async () => {
    const [q, keys, v] = [x.q, x.k, x.v].map(float32) as [Tensor<'float32'>, Tensor<'float32'>, Tensor<'float32'>];
    const sizes = { slots: 2, heads: H, keyWidth: D, valueWidth: D };
    const whole = layer.createMemory(sizes);
    layer.remember({ k: keys, v, lengths: [50], slots: [1] }, whole);
    const sliced = layer.createMemory(sizes);
    for (const [from, to] of [
      [0, 7],
      [7, 50],
    ] as const) {
      const [part, values] = [float32(cut(x.k, from, to)), float32(cut(x.v, from, to))];
      layer.remember({ k: part, v: values, lengths: [to - from], slots: [1], positions: [from] }, sliced);
    }
    const outs = [whole, sliced].map((memory) => layer.recall({ q, lengths: [50], slots: [1] }, memory));
    expect((await bitsOf([outs[1]])).equals(await bitsOf([outs[0]]))).toBe(true);
    const together = layer.forward({ q, k: keys, v, lengths: [50] });
    expect((await bitsOf([together])).equals(await bitsOf([outs[0]]))).toBe(true);
  });

  test('causal is an error that says why', () => {
    const options = { keyProjection: float32(E), causal: true } as unknown as { keyProjection: Tensor<'float32'> };
    expect(() => new Linformer(options)).toThrow(
      expect.objectContaining({
        code: 'ERR_UNSUPPORTED',
        message: expect.stringMatching(/each of the k slots mixes all positions.*BlockCausalLinformer/),
      }),
    );
  });

  test('refuses a sequence that is too long, and projections that do not fit', () => {
    const long = float32(nd([61, H, D]));
    expect(() => layer.forward({ q: long, k: long, v: long, lengths: [61] })).toThrow(
      expect.objectContaining({ code: 'ERR_SHAPE', message: expect.stringMatching(/has 61 tokens, .* n = 60/) }),
    );
    const memory = layer.createMemory({ slots: 1, heads: H, keyWidth: D, valueWidth: D });
    const short = float32(nd([3, H, D]));
    for (const change of [{ positions: [] }, { slots: [0, 1] }, { lengths: [2] }]) {
      expect(() => layer.remember({ k: short, v: short, lengths: [3], ...change }, memory)).toThrow(
        expect.objectContaining({ code: 'ERR_SHAPE' }),
      );
    }
    expect(() => layer.recall({ q: short, lengths: [3], slots: [] }, memory)).toThrow(
      expect.objectContaining({
        code: 'ERR_SHAPE',
        message: expect.stringMatching(/slots must have a number for each of 1 lengths/),
      }),
    );
    for (const options of [
      { keyProjection: float32(nd([4, 8])) },
      { keyProjection: float32(nd([4, 1, 8])), valueProjection: float32(nd([5, 1, 8])) },
    ]) {
      expect(() => new Linformer(options)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    }
  });
});

describe('BlockCausalLinformer', () => {
  const [B, kB, T] = [20, 8, 75];
  const E = rounded(random.normal([B, 1, kB], 0.3), 'float32');
  const F = rounded(random.normal([B, 1, kB], 0.3), 'float32');
  const layer = new BlockCausalLinformer({ keyProjection: float32(E), valueProjection: float32(F) });
  const x = arrays(T);
  const run = (from: number, to: number, sequence: ReturnType<typeof layer.createSequence>, keys = x.k) => {
    const [q, k, v] = [x.q, keys, x.v].map((array) => float32(cut(array, from, to)));
    return layer.forward({ q: q!, k: k!, v: v! }, sequence);
  };
  const fresh = () => layer.createSequence({ capacity: T, heads: H, width: D });
  const rowOf = (array: NdArray, t: number, h: number) => array.data.subarray((t * H + h) * D, (t * H + h + 1) * D);

  test('is softmax over complete blocks as mixtures and the own block up to the token', async () => {
    const exact = attention(x.q, (t, h) => {
      const block = Math.floor(t / B);
      const of = (projection: NdArray, array: NdArray) => [
        ...Array.from({ length: block }, (_, b) => mixtures(projection, array, h, b * B, (b + 1) * B)).flat(),
        ...Array.from({ length: (t % B) + 1 }, (_, i) => rowOf(array, block * B + i, h)),
      ];
      return { keys: of(E, x.k), values: of(F, x.v) };
    });
    expect(relativeError(await readNd(run(0, T, fresh())), exact)).toBeLessThanOrEqual(32 * ulp.float32);
  });

  test('law: any split gives the same bits, also token by token', async () => {
    const wanted = await bitsOf([run(0, T, fresh())]);
    for (const edges of [[3, 20, 45], [...Array(T).keys()].slice(1)]) {
      const sequence = fresh();
      const outs = [0, ...edges].map((from, i) => run(from, [...edges, T][i] ?? T, sequence));
      expect((await bitsOf(outs)).equals(wanted)).toBe(true);
    }
  });

  test('a long text, more blocks than are read at a time, kept as bfloat16', async () => {
    const [block, slots, tokens] = [6, 24, 130];
    const mean = rounded(random.normal([block, H, slots], 0.3), 'bfloat16');
    const long = new BlockCausalLinformer({ keyProjection: float32(mean) });
    const y = arrays(tokens);
    const exact = attention(y.q, (t, h) => {
      const current = Math.floor(t / block);
      const of = (array: NdArray) => [
        ...Array.from({ length: current }, (_, b) => mixtures(mean, array, h, b * block, (b + 1) * block)).flat(),
        ...Array.from({ length: (t % block) + 1 }, (_, i) => rowOf(array, current * block + i, h)),
      ];
      return { keys: of(y.k), values: of(y.v) };
    });
    for (const [dtype, limit] of [
      ['float32', 32 * ulp.float32],
      ['bfloat16', 2 * relativeError(rounded(exact, 'bfloat16'), exact) + 4 * ulp.bfloat16],
    ] as const) {
      const sequence = long.createSequence({ capacity: tokens, heads: H, width: D, dtype });
      const outs: Tensor[] = [];
      for (const [from, to] of [
        [0, 7],
        [7, 125],
        [125, 130],
      ] as const) {
        const [q, keys, v] = [y.q, y.k, y.v].map((array) => tensorOf(cut(array, from, to), dtype));
        outs.push(long.forward({ q: q!, k: keys!, v: v! }, sequence));
      }
      const parts = await Promise.all(outs.map(readNd));
      const made = nd(
        exact.shape,
        parts.flatMap(({ data }) => [...data]),
      );
      expect(relativeError(made, exact)).toBeLessThanOrEqual(limit);
    }
  });

  test('a later key changes no earlier output by a bit', async () => {
    const changed = nd(x.k.shape, x.k.data);
    changed.data.fill(1, 33 * H * D);
    const [one, other] = await Promise.all([x.k, changed].map((keys) => readNd(run(0, T, fresh(), keys))));
    expect(other!.data.subarray(0, 33 * H * D)).toEqual(one!.data.subarray(0, 33 * H * D));
    expect(other!.data.subarray(33 * H * D)).not.toEqual(one!.data.subarray(33 * H * D));
  });

  test('refuses tokens beyond the capacity and projections that do not fit', () => {
    expect(() => run(0, T, layer.createSequence({ capacity: 74, heads: H, width: D }))).toThrow(
      expect.objectContaining({
        code: 'ERR_ARGUMENT',
        message: expect.stringMatching(/room for 74 tokens, got 0 \+ 75/),
      }),
    );
    expect(() => new BlockCausalLinformer({ keyProjection: float32(nd([4, 8])) })).toThrow(
      expect.objectContaining({ code: 'ERR_SHAPE' }),
    );
  });

  test('refuses tokens that do not fit before any of them is read, and sizes that are none', () => {
    const zeros = (...shape: number[]) => float32(nd(shape));
    using sequence = fresh();
    const call = { q: zeros(T, H, D), k: zeros(T, H, D), v: zeros(T, H, D) };
    for (const change of [
      { k: zeros(T + 1, H, D), v: zeros(T + 1, H, D) },
      { k: zeros(9, H, D) },
      { v: zeros(T, H, D + 8) },
      { q: zeros(T, D) },
    ]) {
      expect(() => layer.forward({ ...call, ...change }, sequence)).toThrow(
        expect.objectContaining({ code: 'ERR_SHAPE' }),
      );
    }
    expect(sequence.length).toBe(0);
    const other = new BlockCausalLinformer({ keyProjection: float32(nd([E.shape[0]! * 2, 1, E.shape[2]!])) });
    expect(() => other.forward(call, sequence)).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/must be one of \[B, kB\]/) }),
    );
    for (const change of [{ capacity: 0 }, { capacity: 1.5 }, { heads: 0 }, { width: Number.NaN }]) {
      expect(() => layer.createSequence({ capacity: T, heads: H, width: D, ...change })).toThrow(
        expect.objectContaining({ code: 'ERR_ARGUMENT' }),
      );
    }
  });
});
