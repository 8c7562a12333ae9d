// Gated slot attention and lightning attention as layers: against the formulas of their papers in float64, for inputs that
// are alike and inputs that are large, and their laws. (Whole models of them: test/model/golden.test.ts.)
import { GatedSlotAttention } from '../../lib/layers/gated-slot-attention';
import { type Layer, StateLayout } from '../../lib/layers/layer';
import { LightningAttention } from '../../lib/layers/lightning-attention';
import { lightningDecays } from '../../lib/layers/lightning-decay';
import { type NdArray, nd } from '../../lib/ops/reference';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { onCuda } from '../support/device';
import { bitsOf } from '../support/linear-attention';
import { forward, poolOf, project, rmsNormed, silu, weightOf } from '../support/mixers';

const [T, C, H, K, V, M] = [150, 16, 2, 8, 8, 16];
type Round = (value: number) => number;
const exactly: Round = (value) => value;

interface Subject {
  layout: StateLayout;
  layer: Layer;
  /** The layer in float64; or with every step rounded. */
  oracle(x: NdArray, round: Round): NdArray;
}

const float32 = (array: NdArray) => tensorOf(array, 'float32');
const drawn = (seed: number, std: number, ...shape: number[]) => rounded(seeded(seed).normal(shape, std), 'float32');

function gatedSlots(): Subject {
  const input = drawn(1, C ** -0.5, H * (2 * K + V + M), C);
  const output = drawn(2, (H * V) ** -0.5, C, H * V);
  const norm = drawn(3, 1, H * V);
  const layout = new StateLayout();
  const sizes = { heads: H, kvHeads: H, keyWidth: K, valueWidth: V, slots: M, convTaps: 0 };
  const ones = Tensor.from(new Float32Array(M).fill(1), { dtype: 'float32', shape: [M] });
  const weights = { input: weightOf(input), output: weightOf(output), norm: float32(norm), ones };
  const options = { gateDivisor: 8, featureMap: 'silu', normEps: 1e-5 } as const;
  return {
    layout,
    layer: new GatedSlotAttention({ ...sizes, ...options }, weights, layout, 'gsa'),
    oracle(x, round) {
      const tokens = x.shape[0]!;
      const fused = project(x, input, round);
      const N = input.shape[0]!;
      const mixed = nd([tokens, H * V]);
      for (let h = 0; h < H; h++) {
        const part = (t: number, offset: number, width: number) =>
          Array.from(fused.data.subarray(t * N + offset + h * width, t * N + offset + (h + 1) * width));
        const keys = Array.from({ length: M }, () => new Float64Array(K));
        const values = Array.from({ length: M }, () => new Float64Array(V));
        for (let t = 0; t < tokens; t++) {
          const mapped = (offset: number, width: number) => part(t, offset, width).map((value) => round(silu(value)));
          const [q, k, v] = [mapped(0, K), mapped(H * K, K), mapped(2 * H * K, V)];
          const kept = part(t, H * (2 * K + V), M).map((f) => round(Math.exp(round(-Math.log1p(Math.exp(-f)) / 8))));
          const scores = keys.map((row, m) => {
            const s = round(1 - kept[m]!);
            for (let c = 0; c < K; c++) row[c] = round(round(row[c]! * kept[m]!) + round(s * k[c]!));
            for (let c = 0; c < V; c++) values[m]![c] = round(round(values[m]![c]! * kept[m]!) + round(s * v[c]!));
            return row.reduce((sum, value, c) => round(sum + round(value * q[c]!)), 0);
          });
          const top = Math.max(...scores);
          const exps = scores.map((score) => round(Math.exp(score - top)));
          const total = exps.reduce((sum, value) => round(sum + value), 0);
          for (let c = 0; c < V; c++) {
            const sum = exps.reduce((all, e, m) => round(all + round(round(e / total) * values[m]![c]!)), 0);
            mixed.data[(t * H + h) * V + c] = round(silu(sum));
          }
        }
      }
      return project(rmsNormed(mixed, norm, 1e-5), output, round);
    },
  };
}

function lightning(): Subject {
  const input = drawn(4, C ** -0.5, 4 * H * K, C);
  const output = drawn(5, (H * K) ** -0.5, C, H * K);
  const norm = drawn(6, 1, H * K);
  const decays = lightningDecays('minimax', { heads: H, layer: 1, layers: 4 });
  const layout = new StateLayout();
  const weights = {
    input: weightOf(input),
    output: weightOf(output),
    norm: float32(norm),
    decay: Tensor.from(decays, { dtype: 'float32', shape: [H] }),
  };
  return {
    layout,
    layer: new LightningAttention({ heads: H, width: K, normEps: 1e-6 }, weights, layout, 'lightning'),
    oracle(x, round) {
      const tokens = x.shape[0]!;
      const fused = project(x, input, round);
      const N = 4 * H * K;
      const mixed = nd([tokens, H * K]);
      for (let h = 0; h < H; h++) {
        const decay = round(Math.exp(Math.fround(decays[h]!)));
        const S = Array.from({ length: K }, () => new Float64Array(K));
        for (let t = 0; t < tokens; t++) {
          const part = (i: number) =>
            Array.from(fused.data.subarray(t * N + (i * H + h) * K, t * N + (i * H + h + 1) * K), (value) =>
              round(silu(value)),
            );
          const [q, k, v] = [part(0), part(1), part(2)] as [number[], number[], number[]];
          S.forEach((row, r) => {
            for (let c = 0; c < K; c++) row[c] = round(round(row[c]! * decay) + round(v[r]! * k[c]!));
            mixed.data[(t * H + h) * K + r] = row.reduce((sum, value, c) => round(sum + round(value * q[c]!)), 0);
          });
        }
      }
      const normed = rmsNormed(mixed, norm, 1e-6);
      normed.data.forEach((value, i) => {
        const gate = fused.data[Math.floor(i / (H * K)) * N + 3 * H * K + (i % (H * K))]!;
        normed.data[i] = round(value / (1 + Math.exp(-gate)));
      });
      return project(normed, output, round);
    },
  };
}

const ordinary = drawn(7, 1, T, C);
const changed = (change: (value: number, i: number) => number): NdArray =>
  rounded(nd(ordinary.shape, ordinary.data.map(change)), 'float32');
const inputs: [string, NdArray][] = [
  ['ordinary', ordinary],
  ['near one direction, growing', changed((value, i) => (0.1 * value + Math.sin(i % C)) * (1 + i / (T * C)))],
  // Gates from e^-12 to 1, scores in the hundreds.
  ['large', changed((value) => 20 * value)],
  ['tiny', changed((value) => 1e-4 * value)],
  ['large once, then tiny', changed((value, i) => (i < 5 * C ? 30 : 1e-3) * value)],
];

describe.each([
  ['gated slot attention', gatedSlots],
  ['lightning attention', lightning],
])('%s', (_, make) => {
  const { layout, layer, oracle } = make();

  test.each(inputs)('is its formula: %s', async (_name, x) => {
    poolOf(layout, 1);
    const exact = oracle(x, exactly);
    const limit = 2 * relativeError(oracle(x, Math.fround), exact) + 4 * ulp.float32;
    expect(relativeError(await readNd(forward(layer, x, 0, T)), exact)).toBeLessThanOrEqual(limit);
  });

  const expectSame = async (made: readonly Tensor[], wanted: readonly Tensor[]): Promise<void> => {
    if (!onCuda) {
      expect((await bitsOf(made)).equals(await bitsOf(wanted))).toBe(true);
      return;
    }
    // Products of few rows and of many add in another order there.
    const all = async (tensors: readonly Tensor[]) => {
      const data = (await Promise.all(tensors.map(readNd))).flatMap((array) => [...array.data]);
      return nd([data.length], data);
    };
    expect(relativeError(await all(made), await all(wanted))).toBeLessThanOrEqual(1e-5);
  };

  test('law: split, step, batch and save give the same bits', async () => {
    const whole = poolOf(layout, 1);
    const wanted = [forward(layer, ordinary, 0, T), whole];
    for (const edges of [[1, 64, 70], [...Array(T).keys()].slice(1)]) {
      const pool = poolOf(layout, 1);
      const outs = [0, ...edges].map((from, i) => forward(layer, ordinary, from, [...edges, T][i]!));
      await expectSame([...outs, pool], wanted);
    }
    poolOf(layout, 2);
    const together = forward(layer, ordinary, 0, T, [60, 90]);
    poolOf(layout, 1);
    const alone = [forward(layer, ordinary, 0, 60), forward(layer, ordinary, 60, T, [90], true)];
    await expectSame(alone, [together]);

    const before = poolOf(layout, 1);
    const first = forward(layer, ordinary, 0, 80);
    const saved = await before.read();
    const after = poolOf(layout, 1);
    after.write(saved);
    await expectSame([first, forward(layer, ordinary, 80, T), after], wanted);
  });

  test('a later token changes no earlier output by a bit', async () => {
    const other = nd(ordinary.shape, ordinary.data);
    other.data.fill(3, 100 * C);
    poolOf(layout, 1);
    const [one, two] = await Promise.all([ordinary, other].map((x) => readNd(forward(layer, x, 0, T))));
    expect(two!.data.subarray(0, 100 * C)).toEqual(one!.data.subarray(0, 100 * C));
    expect(two!.data.subarray(100 * C)).not.toEqual(one!.data.subarray(100 * C));
  });
});
