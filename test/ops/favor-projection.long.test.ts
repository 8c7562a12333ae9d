// How far causal attention with FAVOR+ is from softmax attention, over the number of features and the size of its inputs.
import { drawFavorDirections } from '../../lib/ops/favor-projection';
import { matmul } from '../../lib/ops/matmul';
import { weightFrom } from '../../lib/ops/pack-weight';
import { nd } from '../../lib/ops/reference';
import { readNd, seeded, tensorOf } from '../support/arrays';

const [D, T, seeds] = [64, 512, 8];
const counts = [64, 128, 256, 512, 1024, 2048, 4096];
const most = counts.at(-1)!;
const { exp } = Math; // a global of jest's is slow to find

/** a b', of rows of `width` values: float32 products, whose errors are a millionth of those that are looked for. */
async function products(a: Float64Array, b: Float64Array, width: number): Promise<Float64Array> {
  const of = (data: Float64Array) => tensorOf(nd([data.length / width, width], data), 'float32');
  return (await readNd(matmul({ x: of(a), weight: weightFrom(of(b), 'float32') }))).data;
}

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
async function features(x: Float64Array, W: Float64Array, from: number, to: number): Promise<Float64Array> {
  const y = x.map((value) => value * D ** -0.25);
  const out = await products(y, W.subarray(from * D, to * D), D);
  const width = to - from;
  for (let t = 0; t < T; t++) {
    const half = Math.hypot(...y.subarray(t * D, (t + 1) * D)) ** 2 / 2;
    for (let m = t * width; m < (t + 1) * width; m++) out[m] = exp(out[m]! - half);
  }
  return out;
}

const drawn = new Map<string, Float64Array>();

function directionsOf(seed: number, orthogonal: boolean): Float64Array {
  const key = `${seed} ${orthogonal}`;
  const W = drawn.get(key) ?? drawFavorDirections({ directions: most, width: D, seed, orthogonal });
  drawn.set(key, W);
  return W;
}

/** Relative error of the output by number of features, of each seed; queries and keys of this standard deviation. */
async function errors(orthogonal: boolean, std: number): Promise<number[][]> {
  const found: number[][] = counts.map(() => []);
  for (let seed = 0; seed < seeds; seed++) {
    const random = seeded(100 + seed);
    const [q, k] = [random.normal([T, D], std).data, random.normal([T, D], std).data];
    const v = random.normal([T, D]).data;
    const scores = await products(q, k, D);
    const exact = weighted(
      scores.map((score) => Math.exp(score / Math.sqrt(D))),
      v,
    );
    const W = directionsOf(seed, orthogonal);
    let weights = new Float64Array(T * T);
    for (const [n, count] of counts.entries()) {
      const from = n === 0 ? 0 : counts[n - 1]!;
      const more = await products(await features(q, W, from, count), await features(k, W, from, count), count - from);
      weights = weights.map((weight, i) => weight + more[i]!);
      const difference = Math.hypot(...weighted(weights, v).map((value, i) => value - exact[i]!));
      found[n]!.push(difference / Math.hypot(...exact));
    }
  }
  return found;
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Of the mean. */
const deviation = (values: readonly number[]): number =>
  Math.sqrt(values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1) / values.length);

let quarter: Promise<number[][]> | undefined;
const errorsOf = (std: number): Promise<number[][]> => {
  if (std !== 0.25) return errors(true, std);
  quarter ??= errors(true, std);
  return quarter;
};

test('the error falls with the root of the number of features; orthogonal directions beat independent ones', async () => {
  const [orthogonal, independent] = [(await errorsOf(0.25)).map(mean), (await errors(false, 0.25)).map(mean)];
  counts.forEach((_, n) => {
    expect(orthogonal[n]!).toBeLessThan(independent[n]!);
  });
  expect(orthogonal[2]!).toBeLessThan(0.06);
  const fall = orthogonal.at(-1)! / orthogonal[0]!; // ideally (64 / 4096)^(1/2) = 0.125
  expect(fall).toBeGreaterThan(0.09);
  expect(fall).toBeLessThan(0.2);
}, 600_000);

// Measured with numpy, other draws and other inputs: 8 seeds too, so with about the same deviation.
test.each<[std: number, byCount: Readonly<Record<number, number>>]>([
  [0.25, { 64: 0.093, 128: 0.066, 256: 0.046, 512: 0.035, 1024: 0.025, 2048: 0.019, 4096: 0.013 }],
  [0.5, { 64: 0.5, 128: 0.42, 256: 0.318, 512: 0.259, 1024: 0.19, 2048: 0.143, 4096: 0.113 }],
  [0.7, { 64: 1.19, 4096: 0.6 }],
  [1, { 64: 2.07, 4096: 1.33 }],
])(
  'is what another implementation measured, standard deviation %d',
  async (std, byCount) => {
    const found = await errorsOf(std);
    for (const [count, theirs] of Object.entries(byCount)) {
      const ours = found[counts.indexOf(Number(count))]!;
      expect(Math.abs(mean(ours) - theirs)).toBeLessThan(4 * Math.SQRT2 * deviation(ours));
    }
  },
  600_000,
);
