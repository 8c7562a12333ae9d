// favorFeatures against float64 and performer-pytorch, and its laws. Attention made of it:
// favor-features-attention.test.ts.
import { type FavorMaximum, favorFeatures, favorFeaturesReference } from '../../lib/ops/favor-features';
import { favorKinds } from '../../lib/ops/favor-projection';
import { type NdArray, nd } from '../../lib/ops/reference';
import { sequences, uniformSequences } from '../../lib/ops/sequences';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { expectSameTensors, onCuda } from '../support/device';
import { directionsOf, float32, projectionOf } from '../support/favor';
import { readGolden } from '../support/golden';

const dtypes = ['float32', 'bfloat16', 'float16'] as const;

/** The first F of each row's values. */
function unpadded(array: NdArray, F: number): NdArray {
  const [T, H, width] = array.shape as [number, number, number];
  const out = nd([T, H, F]);
  for (let row = 0; row < T * H; row++) out.data.set(array.data.subarray(row * width, row * width + F), row * F);
  return out;
}

describe.each(dtypes)('%s', (dtype) => {
  const cases = favorKinds.flatMap((kind) =>
    (['none', 'token', 'running', 'sequence'] as const)
      .filter((maximum) => kind !== 'relu' || maximum === 'none')
      .flatMap((maximum) => [0, 1e-3].map((eps) => ({ kind, maximum, eps })))
      .filter(({ kind: k, maximum, eps }) => eps === 0 || k === 'relu' || ['token', 'sequence'].includes(maximum)),
  );
  test.each(cases)('$kind, maximum $maximum, eps $eps', async ({ kind, maximum, eps }) => {
    for (const [T, H, D, m] of [
      [0, 1, 8, 8],
      [1, 1, 1, 1],
      [9, 2, 7, 5],
      [70, 3, 16, 40],
      [70, 3, 32, 48],
      [33, 1, 96, 16],
      [9, 2, 64, 64],
      [9, 2, 64, 128],
      [23, 3, 64, 256],
      [23, 3, 128, 128],
    ] as const) {
      const x = rounded(seeded(T + D).normal([T, H, D]), dtype);
      const W = directionsOf(m, D);
      using projection = projectionOf(W, kind);
      const exact = favorFeaturesReference({ x, directions: W, kind, maximum, eps });
      const sequences = uniformSequences(1, T);
      const made = favorFeatures({ x: tensorOf(x, dtype), projection, maximum, eps, sequences });
      const out = await readNd(made.features);
      const F = projection.features;
      expect(out.shape).toEqual([T, H, Math.ceil(F / 8) * 8]);
      // An exponent of up to 20 in float32 makes e^x wrong by as many units in the last place.
      const limit =
        2 * relativeError(rounded(exact.features, dtype), exact.features) + 4 * ulp[dtype] + 16 * ulp.float32;
      expect(relativeError(unpadded(out, F), exact.features)).toBeLessThanOrEqual(limit);
      if (!made.logDecay || T === 0) continue;
      const decay = await readNd(made.logDecay);
      expect(decay.data.subarray(0, H).every((g) => g === -Infinity)).toBe(true);
      decay.data.forEach((g, i) => {
        if (i >= H) expect(Math.abs(g - exact.logDecay.data[i]!)).toBeLessThan(1e-4);
      });
    }
  });
});

test('law: a vector has the same bits whatever its company', async () => {
  const [T, H, D, m] = [150, 2, 64, 256];
  using projection = projectionOf(directionsOf(m, D), 'hyperbolic');
  const x = tensorOf(rounded(seeded(6).normal([T, H, D]), 'bfloat16'), 'bfloat16');
  const featuresOf = (from: number, count: number) =>
    favorFeatures({
      x: x.view([count, H, D], from * H * D, H * D),
      projection,
      maximum: 'token',
      sequences: uniformSequences(1, count),
    }).features;
  await expectSameTensors([featuresOf(0, 101), featuresOf(101, T - 101)], [featuresOf(0, T)], 0);
});

describe('laws of the running maximum', () => {
  const [T, H, D, m] = [37, 3, 16, 24];
  const x = seeded(3).normal([T, H, D], 1.5);
  const run = (from: number, count: number, keyMax: Tensor<'float32'>, readSlot: number, writeSlot: number) => {
    using projection = projectionOf(directionsOf(m, D), 'positive');
    const part = nd([count, H, D], x.data.subarray(from * H * D, (from + count) * H * D));
    const { features, logDecay } = favorFeatures({
      x: float32(part),
      projection,
      maximum: 'running',
      keyMax,
      sequences: sequences([count], { readSlots: [readSlot], writeSlots: [writeSlot] }),
    });
    return [features, logDecay] as const;
  };
  const onGpu = onCuda ? 1e-5 : 0; // products of few rows and of many add in another order there
  /** Decays, 1 for the -Infinity of a first token. */
  const finite = async (tensors: readonly Tensor[]): Promise<number[]> =>
    (await Promise.all(tensors.map(readNd))).flatMap(({ data }) => Array.from(data, (g) => (g === -Infinity ? 1 : g)));
  const slots = () => Tensor.zeros({ dtype: 'float32', shape: [2, H] });

  test('any split of a sequence gives the same bits, also token by token', async () => {
    const whole = slots();
    const [features, logDecay] = run(0, T, whole, -1, 1);
    for (const edges of [[5, 6, 30], [...Array(T).keys()].slice(1)]) {
      const pool = slots();
      const parts = [0, ...edges].map((from, i) => run(from, ([...edges, T][i] ?? T) - from, pool, i ? 1 : -1, 1));
      await expectSameTensors(
        parts.map(([one]) => one),
        [features],
        onGpu,
      );
      const decays = await Promise.all([parts.map(([, one]) => one!), [logDecay!]].map(finite));
      expect(Math.max(...decays[0]!.map((g, i) => Math.abs(g - decays[1]![i]!)))).toBeLessThanOrEqual(onGpu);
      await expectSameTensors([pool], [whole], onGpu);
    }
  });

  test('a batch gives the bits of each of its sequences', async () => {
    using projection = projectionOf(directionsOf(m, D), 'hyperbolic');
    const together = favorFeatures({ x: float32(x), projection, maximum: 'running', sequences: sequences([4, 0, 33]) });
    const alone = [
      [0, 4],
      [4, 33],
    ].map(([from, count]) =>
      favorFeatures({
        x: float32(nd([count!, H, D], x.data.subarray(from! * H * D, (from! + count!) * H * D))),
        projection,
        maximum: 'running',
        sequences: sequences([count!]),
      }),
    );
    await expectSameTensors(
      alone.map(({ features }) => features),
      [together.features],
      onGpu,
    );
    const decays = await Promise.all([alone.map(({ logDecay }) => logDecay!), [together.logDecay!]].map(finite));
    expect(Math.max(...decays[0]!.map((g, i) => Math.abs(g - decays[1]![i]!)))).toBeLessThanOrEqual(onGpu);
  });

  test('in a sequence of more tokens than a GPU takes at a time', async () => {
    const [tokens, directions] = [16_500, directionsOf(4, 4)];
    const long = rounded(seeded(5).normal([tokens, 1, 4]), 'float32');
    long.data.forEach((value, i) => {
      long.data[i] = Math.fround(value * (1 + i / (4 * tokens))); // so that it goes on rising
    });
    const call = { x: float32(long), projection: projectionOf(directions, 'positive'), maximum: 'running' } as const;
    const made = favorFeatures({ ...call, sequences: uniformSequences(1, tokens) });
    call.projection.dispose();
    const exact = favorFeaturesReference({ x: long, directions, kind: 'positive', maximum: 'running' });
    expect(relativeError(unpadded(await readNd(made.features), 4), exact.features)).toBeLessThan(32 * ulp.float32);
    const [decay, wanted] = [(await readNd(made.logDecay!)).data, exact.logDecay.data];
    expect(Math.max(...wanted.map((g, i) => (i ? Math.abs(g - decay[i]!) : 0)))).toBeLessThan(1e-5);
    expect(wanted.subarray(8192 + 1).some((g) => g < 0)).toBe(true);
  });

  test('includes a decay of the attention itself', async () => {
    using projection = projectionOf(directionsOf(m, D), 'positive');
    const call = { x: float32(x), projection, maximum: 'running', sequences: uniformSequences(1, T) } as const;
    const g = rounded(seeded(4).uniform([T, H], -1, 0), 'float32');
    const own = (await readNd(favorFeatures(call).logDecay!)).data;
    for (const decay of [g, nd([H], g.data.subarray(0, H))]) {
      const made = (await readNd(favorFeatures({ ...call, decay: float32(decay) }).logDecay!)).data;
      const wanted = own.map((value, i) => Math.fround(value + decay.data[i % decay.data.length]!));
      expect(made).toEqual(wanted);
    }
  });

  test('goes on from keyMax, and copies it for a sequence without tokens', async () => {
    const pool = float32(nd([2, H], [1e3, 1e3, -1e3, 0, 0, 0]));
    const [, logDecay] = run(0, 1, pool, 0, 1);
    expect((await readNd(logDecay!)).data.subarray(0, 2)).toEqual(Float64Array.from([0, 0]));
    expect((await readNd(pool)).data.subarray(3, 5)).toEqual(Float64Array.from([1e3, 1e3]));
    expect((await readNd(logDecay!)).data[2]!).toBeLessThan(-900);
    run(0, 0, pool, 0, 1);
    expect((await readNd(pool)).data.subarray(3)).toEqual(Float64Array.from([1e3, 1e3, -1e3]));
  });
});

describe('performer-pytorch', () => {
  const golden = readGolden('mechanisms/favor');
  const array = (name: string): NdArray => nd(golden.float32(name).shape, golden.float32(name).data);

  // What attention makes of them: test/layers/linear-attention.test.ts.
  test.each([0, 1])('features with its eps, scaling %i', async (scaling) => {
    const W = array(`directions_${scaling}`);
    const sequence = uniformSequences(1, 40);
    for (const [name, x, kind, maximum] of [
      ['queries', 'q', 'positive', 'token'],
      ['keys', 'k', 'positive', 'sequence'],
      ['relu_queries', 'q', 'relu', 'none'],
    ] as const) {
      using projection = projectionOf(W, kind);
      const eps = kind === 'relu' ? 1e-3 : 1e-4;
      const made = favorFeatures({ x: float32(array(x)), projection, maximum, eps, sequences: sequence });
      const out = await readNd(made.features);
      expect(relativeError(out, array(`${name}_${scaling}`))).toBeLessThanOrEqual(16 * ulp.float32);
    }
  });
});

describe('refuses', () => {
  const projection = projectionOf(directionsOf(8, 8), 'positive');
  const relu = projectionOf(directionsOf(8, 8), 'relu');
  const call = {
    x: float32(nd([4, 1, 8])),
    projection,
    maximum: 'running' as FavorMaximum,
    sequences: uniformSequences(1, 4),
  };
  test.each([
    ['another rank', { x: float32(nd([4, 8])) }, 'ERR_SHAPE', /x must be \[T, H, D\]/],
    ['another dtype', { x: tensorOf(nd([4, 1, 8]), 'int32') }, 'ERR_DTYPE', /got int32/],
    ['another width', { x: float32(nd([4, 1, 9])) }, 'ERR_SHAPE', /x must be \[T, H, D\] = \[4, 1, 8\]/],
    ['other tokens', { sequences: uniformSequences(1, 5) }, 'ERR_SHAPE', /= \[5, 1, 8\]/],
    ['another maximum', { maximum: 'chunk' }, 'ERR_ARGUMENT', /maximum must be one of none, token/],
    ['a maximum of relu', { projection: relu }, 'ERR_ARGUMENT', /maximum must be none for the kind relu/],
    ['eps with a running maximum', { eps: 1e-6 }, 'ERR_ARGUMENT', /eps must be 0 with the maximum running, where it/],
    ['a negative eps', { maximum: 'token', eps: -1 }, 'ERR_ARGUMENT', /eps must be 0 or more/],
    [
      'keyMax of a query',
      { maximum: 'token', keyMax: float32(nd([1, 1])) },
      'ERR_ARGUMENT',
      /keyMax needs the maximum/,
    ],
    ['decay of a query', { maximum: 'token', decay: float32(nd([1])) }, 'ERR_ARGUMENT', /decay needs the maximum/],
    ['a decay of other heads', { decay: float32(nd([2])) }, 'ERR_SHAPE', /decay must be \[H\] = \[1\], got \[2\]/],
    ['keyMax of other heads', { keyMax: float32(nd([1, 2])) }, 'ERR_SHAPE', /keyMax must be \[slots, H\] = \[1, 1\]/],
  ] as const)('%s', (_, change, code, message) => {
    expect(() => favorFeatures({ ...call, ...change } as Parameters<typeof favorFeatures>[0])).toThrow(
      expect.objectContaining({ code, op: 'favorFeatures', message: expect.stringMatching(message) }),
    );
  });

  test('slots that are not there, when it runs', async () => {
    const { features } = favorFeatures({
      ...call,
      keyMax: Tensor.zeros({ dtype: 'float32', shape: [2, 1] }),
      sequences: sequences([4], { readSlots: [7] }),
    });
    await expect(features.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });
});
