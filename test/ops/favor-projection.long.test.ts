// How far causal attention with FAVOR+ is from softmax attention, over the number of features, in float64.
import { drawFavorDirections } from '../../lib/ops/favor-projection';
import { seeded } from '../support/arrays';

const [D, T, seeds] = [64, 512, 8];
const counts = [64, 128, 256, 512, 1024, 2048, 4096];
const most = counts.at(-1)!;

const product = (a: Float64Array, b: Float64Array, i: number, j: number, width: number): number => {
  let sum = 0;
  for (let c = 0; c < width; c++) sum += a[i * width + c]! * b[j * width + c]!;
  return sum;
};

/** Rows of softmax weights, or of any others, times the values: [T, D]. */
function weighted(weights: Float64Array, v: Float64Array): Float64Array {
  const out = new Float64Array(T * D);
  for (let i = 0; i < T; i++) {
    let total = 0;
    for (let j = 0; j <= i; j++) {
      const weight = weights[i * T + j]!;
      total += weight;
      for (let d = 0; d < D; d++) out[i * D + d]! += weight * v[j * D + d]!;
    }
    for (let d = 0; d < D; d++) out[i * D + d]! /= total;
  }
  return out;
}

/** e^(w.y - |y|^2 / 2) for directions [from, to), [T, to - from]. */
function features(x: Float64Array, W: Float64Array, from: number, to: number): Float64Array {
  const rows = W.subarray(from * D, to * D);
  const y = x.map((value) => value * D ** -0.25);
  const out = new Float64Array(T * (to - from));
  for (let t = 0; t < T; t++) {
    const half = product(y, y, t, t, D) / 2;
    for (let m = 0; m < to - from; m++) out[t * (to - from) + m] = Math.exp(product(y, rows, t, m, D) - half);
  }
  return out;
}

/** Relative error of the output by number of features, the mean over the seeds. */
function errors(orthogonal: boolean): number[] {
  const sums = counts.map(() => 0);
  for (let seed = 0; seed < seeds; seed++) {
    const random = seeded(100 + seed);
    const [q, k] = [random.normal([T, D], 0.25).data, random.normal([T, D], 0.25).data];
    const v = random.normal([T, D]).data;
    const scores = new Float64Array(T * T);
    for (let i = 0; i < T; i++) {
      for (let j = 0; j <= i; j++) scores[i * T + j] = Math.exp(product(q, k, i, j, D) / Math.sqrt(D));
    }
    const exact = weighted(scores, v);
    const W = drawFavorDirections({ directions: most, width: D, seed, orthogonal });
    const weights = new Float64Array(T * T);
    counts.forEach((count, n) => {
      const from = n === 0 ? 0 : counts[n - 1]!;
      const [a, b] = [features(q, W, from, count), features(k, W, from, count)];
      for (let i = 0; i < T; i++) {
        for (let j = 0; j <= i; j++) weights[i * T + j]! += product(a, b, i, j, count - from);
      }
      const out = weighted(weights, v);
      const difference = Math.hypot(...out.map((value, i) => value - exact[i]!));
      sums[n]! += difference / Math.hypot(...exact) / seeds;
    });
  }
  return sums;
}

test('the error falls with the root of the number of features; orthogonal directions beat independent ones', () => {
  const orthogonal = errors(true);
  const independent = errors(false);
  counts.forEach((_, n) => {
    expect(orthogonal[n]!).toBeLessThan(independent[n]!);
  });
  expect(orthogonal[2]!).toBeLessThan(0.06);
  const fall = orthogonal.at(-1)! / orthogonal[0]!; // ideally (64 / 4096)^(1/2) = 0.125
  expect(fall).toBeGreaterThan(0.09);
  expect(fall).toBeLessThan(0.2);
}, 600_000);
