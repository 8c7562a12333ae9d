// LinearAttention against quadratic float64 oracles and the authors' code, and its laws.
import { alibiSlopes } from '../../lib/layers/alibi';
import type { LayerFeatureMap } from '../../lib/layers/feature-maps';
import { LinearAttention, type LinearAttentionOptions } from '../../lib/layers/linear-attention';
import type { LinearAttentionState } from '../../lib/layers/linear-attention-state';
import { favorFeaturesReference } from '../../lib/ops/favor-features';
import { FavorProjection } from '../../lib/ops/favor-projection';
import { featureMapReference } from '../../lib/ops/feature-map';
import { type NdArray, nd } from '../../lib/ops/reference';
import { sequences, uniformSequences } from '../../lib/ops/sequences';
import type { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { expectSameTensors } from '../support/device';
import { readGolden } from '../support/golden';
import { bitsOf } from '../support/linear-attention';

const [T, H, D, V] = [75, 2, 16, 24];
const float32 = (array: NdArray) => tensorOf(array, 'float32');
const W = rounded(seeded(1).normal([32, D]), 'float32');
const projection = FavorProjection.from(W.data, { directions: 32, width: D });
const slopes = alibiSlopes(H);
const decays = slopes.map((slope) => -slope);
const alibi = { per: 'head', g: float32(nd([H], decays)) } as const;

const random = seeded(2);
const plain = {
  q: rounded(random.normal([T, H, D]), 'float32'),
  k: rounded(random.normal([T, H, D]), 'float32'),
  v: rounded(random.normal([T, H, V]), 'float32'),
};
/** Keys near one direction, of growing size. */
const correlated = {
  ...plain,
  k: rounded(
    nd(
      plain.k.shape,
      plain.k.data.map((x, i) => (0.1 * x + Math.sin(i % D)) * (1 + i / (T * H * D))),
    ),
    'float32',
  ),
};
const large = {
  ...plain,
  k: nd(
    plain.k.shape,
    plain.k.data.map((x) => 3 * x),
  ),
};

const featuresOf = (x: NdArray, map: LayerFeatureMap): NdArray =>
  map.name === 'favor'
    ? favorFeaturesReference({ x, directions: W, kind: map.projection.kind, maximum: 'none', eps: map.eps ?? 0 })
        .features
    : featureMapReference(x, map);

/** out_i = sum_j w_ij v_j / (sum_j w_ij + eps), w_ij = e^(-slope (i - j)) phi(q_i).phi(k_j), over j <= i or over all; the features
 * rounded where asked for. */
function quadratic(
  { q, k, v }: typeof plain,
  map: LayerFeatureMap,
  options: { decayed?: boolean; eps?: number | undefined; causal?: boolean; round?: 'bfloat16' },
): NdArray {
  const { decayed = false, eps, causal = true, round } = options;
  const [a, b] = [q, k].map((x) => {
    const features = featuresOf(x, map);
    return round ? rounded(features, round) : features;
  }) as [NdArray, NdArray];
  const F = a.shape[2]!;
  const [Tq, Tk] = [q.shape[0]!, k.shape[0]!];
  const out = nd([Tq, H, V]);
  for (let i = 0; i < Tq; i++) {
    for (let h = 0; h < H; h++) {
      let total = eps ?? 0;
      const row = out.data.subarray((i * H + h) * V, (i * H + h + 1) * V);
      for (let j = 0; j < (causal ? i + 1 : Tk); j++) {
        let weight = decayed ? Math.exp(-slopes[h]! * (i - j)) : 1;
        let dot = 0;
        for (let f = 0; f < F; f++) dot += a.data[(i * H + h) * F + f]! * b.data[(j * H + h) * F + f]!;
        weight *= dot;
        total += weight;
        for (let c = 0; c < V; c++) row[c]! += weight * v.data[(j * H + h) * V + c]!;
      }
      if (eps !== undefined) row.set(row.map((value) => value / total));
    }
  }
  return out;
}

/**
 * The same by loops of float32: the recurrence as it is written, every product and sum rounded. The decay is one number of
 * float32, so what its rounding does to a key grows with the key's age, in this order or any other.
 */
function plainFloat32(
  { q, k, v }: typeof plain,
  map: LayerFeatureMap,
  { decayed = false, eps, causal = true }: { decayed?: boolean; eps?: number | undefined; causal?: boolean },
): NdArray {
  const [a, b] = [q, k].map((x) => rounded(featuresOf(x, map), 'float32')) as [NdArray, NdArray];
  const round = Math.fround;
  const F = a.shape[2]!;
  const [Tq, Tk] = [q.shape[0]!, k.shape[0]!];
  const out = nd([Tq, H, V]);
  for (let h = 0; h < H; h++) {
    const decay = decayed ? round(Math.exp(-slopes[h]!)) : 1;
    const S = Array.from({ length: V }, () => new Float32Array(F));
    const z = new Float32Array(F);
    const dot = (x: Float32Array, y: NdArray, t: number): number =>
      x.reduce((sum, value, f) => round(sum + round(value * y.data[(t * H + h) * F + f]!)), 0);
    const update = (t: number): void => {
      const key = (f: number): number => b.data[(t * H + h) * F + f]!;
      for (let f = 0; f < F; f++) z[f] = round(z[f]! * decay) + key(f);
      for (const [c, row] of S.entries()) {
        const value = v.data[(t * H + h) * V + c]!;
        for (let f = 0; f < F; f++) row[f] = round(row[f]! * decay) + round(key(f) * value);
      }
    };
    if (!causal) for (let t = 0; t < Tk; t++) update(t);
    for (let t = 0; t < Tq; t++) {
      if (causal) update(t);
      const total = eps === undefined ? 1 : round(dot(z, a, t) + eps);
      for (const [c, row] of S.entries()) out.data[(t * H + h) * V + c] = round(dot(row, a, t) / total);
    }
  }
  return out;
}

const cases: readonly [name: string, options: LinearAttentionOptions & { featureMap: LayerFeatureMap }][] = [
  ['identity', { featureMap: { name: 'identity' } }],
  ['identity, ALiBi', { featureMap: { name: 'identity' }, decay: alibi }],
  ['elu1', { featureMap: { name: 'elu1' }, normalize: { eps: 1e-6 } }],
  ['elu1, ALiBi', { featureMap: { name: 'elu1' }, normalize: { eps: 1e-6 }, decay: alibi }],
  ['squaredRelu', { featureMap: { name: 'squaredRelu' }, normalize: { eps: 1e-3 } }],
  ['hedgehogSplit', { featureMap: { name: 'hedgehogSplit', floor: 1e-12 }, normalize: { eps: 1e-12 } }],
  ['hedgehogJoint', { featureMap: { name: 'hedgehogJoint' }, normalize: { eps: 1e-6 } }],
  ['taylor, ALiBi', { featureMap: { name: 'taylor' }, normalize: { eps: 1e-12 }, decay: alibi }],
  ['dpfp', { featureMap: { name: 'dpfp', order: 2 }, normalize: { eps: 1e-6 } }],
  ['FAVOR+', { featureMap: { name: 'favor', projection }, normalize: { eps: 0 } }],
  ['FAVOR+, ALiBi', { featureMap: { name: 'favor', projection }, normalize: { eps: 0 }, decay: alibi }],
];

const run = (layer: LinearAttention, { q, k, v }: typeof plain, state?: LinearAttentionState) =>
  layer.forward({ q: float32(q), k: float32(k), v: float32(v), sequences: uniformSequences(1, T) }, state);

describe.each(cases)('%s', (_, options) => {
  const layer = new LinearAttention(options);
  const eps = options.normalize?.eps;
  // FAVOR+: exponents of up to 60, each rounded by 2^-19 at the worst.
  const limitOf = (exact: NdArray, x: typeof plain, form: Parameters<typeof plainFloat32>[2]): number => {
    if (options.featureMap.name === 'favor') return 2e-5;
    return 2 * relativeError(plainFloat32(x, options.featureMap, form), exact) + 4 * ulp.float32;
  };

  test.each([
    ['plain', plain],
    ['correlated', correlated],
    ['large', large],
  ])('is the quadratic form, %s keys', async (_name, x) => {
    const form = { decayed: options.decay !== undefined, eps };
    const exact = quadratic(x, options.featureMap, form);
    const limit = limitOf(exact, x, form);
    expect(relativeError(await readNd(run(layer, x)), exact)).toBeLessThanOrEqual(limit);
  });

  test('in bfloat16', async () => {
    const held = { q: rounded(plain.q, 'bfloat16'), k: rounded(plain.k, 'bfloat16'), v: rounded(plain.v, 'bfloat16') };
    const form = { decayed: options.decay !== undefined, eps };
    const exact = quadratic(held, options.featureMap, form);
    const simple = rounded(quadratic(held, options.featureMap, { ...form, round: 'bfloat16' }), 'bfloat16');
    const [q, k, v] = [held.q, held.k, held.v].map((x) => tensorOf(x, 'bfloat16'));
    const out = layer.forward({ q: q!, k: k!, v: v!, sequences: uniformSequences(1, T) });
    const limit = 2 * relativeError(simple, exact) + 4 * ulp.bfloat16;
    expect(relativeError(await readNd(out), exact)).toBeLessThanOrEqual(limit);
  });

  const stateOf = (slots: number) =>
    layer.createState({ slots, heads: H, keyWidth: layer.featureWidth(D), valueWidth: V });
  const part = (from: number, count: number) => {
    const cut = ({ shape, data }: NdArray) => {
      const row = data.length / T;
      return float32(nd([count, ...shape.slice(1)], data.subarray(from * row, (from + count) * row)));
    };
    return { q: cut(plain.q), k: cut(plain.k), v: cut(plain.v) };
  };
  const tensorsOf = ({ state, keySum, keyMax }: LinearAttentionState) => [state, keySum, keyMax];

  test('law: split, step, batch and save give the same bits', async () => {
    const whole = stateOf(1);
    const out = layer.forward({ ...part(0, T), sequences: sequences([T], { readSlots: [-1] }) }, whole);
    const wanted = [out, ...tensorsOf(whole)];
    // On a GPU products of few rows and of many add in another order: exponents of up to 30 make 1e-5 of that.
    const onGpu = options.featureMap.name === 'favor' ? 1e-5 : 0;

    for (const edges of [[1, 20, 64], [...Array(T).keys()].slice(1)]) {
      const pool = stateOf(1);
      const outs: Tensor[] = [0, ...edges].map((from, i) => {
        const count = ([...edges, T][i] ?? T) - from;
        return layer.forward(
          { ...part(from, count), sequences: sequences([count], { readSlots: [i ? 0 : -1] }) },
          pool,
        );
      });
      await expectSameTensors([...outs, ...tensorsOf(pool)], wanted, onGpu);
    }

    const pool = stateOf(2);
    const tokens = sequences([30, 45], { readSlots: [-1, -1] });
    const both = layer.forward({ ...part(0, T), sequences: tokens }, pool);
    const alone = [
      [0, 30],
      [30, 45],
    ].map(([from, count]) => layer.forward({ ...part(from!, count!), sequences: sequences([count!]) }));
    await expectSameTensors(alone, [both], onGpu);

    const before = stateOf(1);
    const first = layer.forward({ ...part(0, 40), sequences: sequences([40], { readSlots: [-1] }) }, before);
    const after = stateOf(1);
    after.restore(await before.save());
    const rest = layer.forward({ ...part(40, 35), sequences: sequences([35]) }, after);
    await expectSameTensors([first, rest, ...tensorsOf(after)], wanted, onGpu);
  });

  test('a later key changes no earlier output by a bit', async () => {
    const changed = { ...plain, k: nd(plain.k.shape, plain.k.data) };
    changed.k.data.fill(2, 50 * H * D);
    const [one, other] = await Promise.all([plain, changed].map((x) => readNd(run(layer, x))));
    expect(other!.data.subarray(0, 50 * H * V)).toEqual(one!.data.subarray(0, 50 * H * V));
    expect(other!.data.subarray(50 * H * V)).not.toEqual(one!.data.subarray(50 * H * V));
  });

  if (options.decay) return;

  test('bidirectional, and a memory that is recalled', async () => {
    const form = { eps, causal: false };
    const exact = quadratic(correlated, options.featureMap, form);
    const call = { q: float32(correlated.q), k: float32(correlated.k), v: float32(correlated.v) };
    const limit = limitOf(exact, correlated, form);
    const out = await readNd(layer.bidirectional({ ...call, sequences: uniformSequences(1, T) }));
    expect(relativeError(out, exact)).toBeLessThanOrEqual(limit);

    const memory = stateOf(3);
    for (const [from, count] of [
      [0, 10],
      [10, 65],
    ] as const) {
      const { k, v } = part(from, count);
      const slots = { readSlots: [from ? 2 : -1], writeSlots: [2] };
      layer.remember({ k, v, sequences: sequences([count], slots) }, memory);
    }
    const held = await bitsOf(tensorsOf(memory));
    const asked = layer.recall(
      { q: part(0, 9).q, sequences: sequences([9], { readSlots: [2], writeSlots: [2] }) },
      memory,
    );
    const question = { ...plain, q: nd([9, H, D], plain.q.data.subarray(0, 9 * H * D)) };
    const wanted = quadratic(question, options.featureMap, form);
    const askedLimit = limitOf(wanted, question, form);
    expect(relativeError(await readNd(asked), wanted)).toBeLessThanOrEqual(askedLimit);
    expect((await bitsOf(tensorsOf(memory))).equals(held)).toBe(true);
  });
});

describe("the authors' code", () => {
  const arraysOf = (golden: ReturnType<typeof readGolden>) => (name: string) =>
    nd(golden.float32(name).shape, golden.float32(name).data);

  test('normalised linear attention of fla', async () => {
    const array = arraysOf(readGolden('mechanisms/feature-maps'));
    const layer = new LinearAttention({ normalize: { eps: 1e-10 } });
    const [q, k, v] = ['q', 'k', 'v'].map((name) => float32(array(`attention_${name}`)));
    const out = layer.forward({ q: q!, k: k!, v: v!, sequences: uniformSequences(1, 40) });
    expect(relativeError(await readNd(out), array('attention_out'))).toBeLessThanOrEqual(16 * ulp.float32);
  });

  test.each([0, 1])('bidirectional FAVOR+ of performer-pytorch with its eps, scaling %i', async (scaling) => {
    const array = arraysOf(readGolden('mechanisms/favor'));
    for (const [kind, eps, name] of [
      ['positive', 1e-4, 'out'],
      ['relu', 1e-3, 'relu_out'],
    ] as const) {
      using directions = FavorProjection.from(array(`directions_${scaling}`).data, { directions: 24, width: 16, kind });
      const featureMap = { name: 'favor', projection: directions, eps } as const;
      const layer = new LinearAttention({ featureMap, normalize: { eps: 0 } });
      const [q, k, v] = ['q', 'k', 'v'].map((part) => float32(array(part)));
      const out = layer.bidirectional({ q: q!, k: k!, v: v!, sequences: uniformSequences(1, 40) });
      expect(relativeError(await readNd(out), array(`${name}_${scaling}`))).toBeLessThanOrEqual(32 * ulp.float32);
    }
  });
});

test('the slopes of ALiBi are those of the published code', () => {
  expect(alibiSlopes(8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => 2 ** -n));
  expect(alibiSlopes(1)).toEqual([2 ** -8]);
  expect(alibiSlopes(6)).toEqual([...alibiSlopes(4), 2 ** -1, 2 ** -3]);
  expect(() => alibiSlopes(0)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
});
