// Causal attention made of favorFeatures and linearAttention, against float64 with nothing subtracted.
import { type FavorMaximum, favorFeatures, favorFeaturesReference } from '../../lib/ops/favor-features';
import type { FavorProjection } from '../../lib/ops/favor-projection';
import { linearAttention } from '../../lib/ops/linear-attention';
import { type NdArray, nd } from '../../lib/ops/reference';
import { uniformSequences } from '../../lib/ops/sequences';
import type { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded } from '../support/arrays';
import { directionsOf, float32, projectionOf } from '../support/favor';

/** Causal attention with FAVOR+ features, from zero. */
function causal(q: Tensor, k: Tensor, v: Tensor, projection: FavorProjection) {
  const from = uniformSequences(1, v.shape[0]!);
  const features = (x: Tensor, maximum: FavorMaximum) =>
    favorFeatures({ x: x as Tensor<'float32'>, projection, maximum, sequences: from });
  const keys = features(k, 'running');
  return linearAttention({
    q: features(q, 'token').features,
    k: keys.features,
    v: v as Tensor<'float32'>,
    rule: { name: 'additive' },
    decay: { per: 'token', g: keys.logDecay! },
    normalize: { eps: 0 },
    sequences: from,
  }).out;
}

/** In float64, with nothing subtracted. */
function causalReference(q: NdArray, k: NdArray, v: NdArray, W: NdArray): NdArray {
  const [T, H] = k.shape as [number, number];
  const features = (x: NdArray) =>
    favorFeaturesReference({ x, directions: W, kind: 'positive', maximum: 'none' }).features;
  const [a, b] = [features(q), features(k)];
  const F = W.shape[0]!;
  const V = v.shape[2]!;
  const out = nd([T, H, V]);
  for (let t = 0; t < T; t++) {
    for (let h = 0; h < H; h++) {
      let total = 0;
      for (let s = 0; s <= t; s++) {
        let weight = 0;
        for (let f = 0; f < F; f++) weight += a.data[(t * H + h) * F + f]! * b.data[(s * H + h) * F + f]!;
        total += weight;
        for (let c = 0; c < V; c++) out.data[(t * H + h) * V + c]! += weight * v.data[(s * H + h) * V + c]!;
      }
      for (let c = 0; c < V; c++) out.data[(t * H + h) * V + c]! /= total;
    }
  }
  return out;
}

describe('causal attention', () => {
  const [T, H, D, m] = [90, 2, 16, 32];
  const W = directionsOf(m, D);
  const random = seeded(8);
  const [q, k, v] = [1, 1, 1].map((std) => rounded(random.normal([T, H, D], std), 'float32')) as [
    NdArray,
    NdArray,
    NdArray,
  ];

  test.each([
    ['unit variance', 1, 0],
    ['keys that grow', 1, 0.02],
    ['keys near one direction', 1, -1],
    ['large keys', 3, 0],
    ['keys that are large at first, with exponents of -60', 1, -2],
  ])('the running maximum is exact: %s', async (_, std, growth) => {
    const keys = nd(
      k.shape,
      k.data.map((value, i) => {
        const t = Math.floor(i / (H * D));
        if (growth === -2) return Math.fround(value * (t < 30 ? 5 : 1));
        return Math.fround(growth < 0 ? 0.1 * value + Math.sin(i % D) : value * std * (1 + growth * t));
      }),
    );
    using projection = projectionOf(W, 'positive');
    const out = await readNd(causal(float32(q), float32(keys), float32(v), projection));
    // Exponents of up to 60 in float32, each rounded by 2^-19 at the worst.
    expect(relativeError(out, causalReference(q, keys, v, W))).toBeLessThanOrEqual(2e-5);
  });

  test('a later key changes no earlier output by a bit', async () => {
    using projection = projectionOf(W, 'positive');
    const changed = nd(k.shape, k.data);
    changed.data.fill(9, 60 * H * D);
    const [one, other] = await Promise.all(
      [k, changed].map((keys) => readNd(causal(float32(q), float32(keys), float32(v), projection))),
    );
    expect(other!.data.subarray(0, 60 * H * D)).toEqual(one!.data.subarray(0, 60 * H * D));
    expect(other!.data.subarray(60 * H * D)).not.toEqual(one!.data.subarray(60 * H * D));
  });
});
