// featureMap against float64, against the authors' code, and its laws.
import { type FeatureMapOptions, featureMap, featureMapReference, featureMaps } from '../../lib/ops/feature-map';
import { type NdArray, nd } from '../../lib/ops/reference';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { readGolden } from '../support/golden';
import { bitsOf } from '../support/linear-attention';

const dtypes = ['float32', 'bfloat16', 'float16'] as const;

/** The reference with its zeros up to a multiple of 8. */
function padded(features: NdArray): NdArray {
  const [T, H, F] = features.shape as [number, number, number];
  const width = Math.ceil(F / 8) * 8;
  const out = nd([T, H, width]);
  for (let row = 0; row < T * H; row++) out.data.set(features.data.subarray(row * F, (row + 1) * F), row * width);
  return out;
}

const maps: readonly FeatureMapOptions[] = [
  ...featureMaps.map((name) => ({ name })),
  { name: 'exp', scale: -0.5 },
  { name: 'softmax', floor: 0.01 },
  { name: 'hedgehogSplit', floor: 1e-12 },
  { name: 'taylor', scale: 1 },
];

describe.each(dtypes)('%s', (dtype) => {
  test.each(maps)('$name', async (map) => {
    for (const [T, H, D] of [
      [0, 2, 8],
      [1, 1, 1],
      [3, 2, 7],
      [5, 3, 16],
      [2, 1, 33],
      [40, 2, 64],
    ] as const) {
      const x = rounded(seeded(T + D).normal([T, H, D], 2), dtype);
      const exact = padded(featureMapReference(x, map));
      const out = await readNd(featureMap({ x: tensorOf(x, dtype), ...map }));
      expect(out.shape).toEqual(exact.shape);
      const limit = 2 * relativeError(rounded(exact, dtype), exact) + 4 * ulp[dtype];
      expect(relativeError(out, exact)).toBeLessThanOrEqual(limit);
    }
  });

  test('dpfp of higher orders', async () => {
    for (const [D, order] of [
      [1, 1],
      [3, 5],
      [16, 3],
      [40, 2],
    ] as const) {
      const x = rounded(seeded(D).normal([4, 2, D]), dtype);
      const exact = padded(featureMapReference(x, { name: 'dpfp', order }));
      const out = await readNd(featureMap({ x: tensorOf(x, dtype), name: 'dpfp', order }));
      expect(relativeError(out, exact)).toBeLessThanOrEqual(4 * ulp[dtype]);
    }
  });
});

test('taylor: the features multiply to 1 + s + s^2 / 2', async () => {
  const q = rounded(seeded(1).normal([50, 1, 16]), 'float32');
  const k = rounded(seeded(2).normal([50, 1, 16]), 'float32');
  const [a, b] = await Promise.all(
    [q, k].map((x) => readNd(featureMap({ x: tensorOf(x, 'float32'), name: 'taylor' }))),
  );
  const F = a!.shape[2]!;
  expect(F).toBe(160); // 153 and zeros
  for (let t = 0; t < 50; t++) {
    let s = 0;
    let product = 0;
    for (let d = 0; d < 16; d++) s += (q.data[t * 16 + d]! * k.data[t * 16 + d]!) / 4;
    for (let f = 0; f < F; f++) product += a!.data[t * F + f]! * b!.data[t * F + f]!;
    expect(Math.abs(product - (1 + s + (s * s) / 2))).toBeLessThan(1e-5 * (1 + s * s));
  }
});

test('small features keep their own precision', async () => {
  const x = rounded(seeded(7).uniform([8, 1, 16], -20, 5), 'float32');
  for (const name of ['elu1', 'exp', 'softmax', 'hedgehogJoint'] as const) {
    const exact = featureMapReference(x, { name }).data;
    const out = (await readNd(featureMap({ x: tensorOf(x, 'float32'), name }))).data;
    // An exponent of 80 is itself rounded by 2^-18.
    for (let i = 0; i < exact.length; i++) expect(Math.abs(out[i]! / exact[i]! - 1)).toBeLessThan(2 ** -16);
  }
});

test('extreme values stay finite where the map is bounded', async () => {
  const x = nd([3, 1, 8], [1e4, -1e4, 0, 1, -1, 3e4, -3e4, 2, ...Array(8).fill(-6e4), ...Array(8).fill(6e4)]);
  for (const dtype of dtypes) {
    const held = rounded(x, dtype);
    for (const name of ['elu1', 'relu', 'softmax', 'hedgehogSplit', 'hedgehogJoint'] as const) {
      const exact = rounded(featureMapReference(held, { name }), dtype);
      const out = await readNd(featureMap({ x: tensorOf(x, dtype), name }));
      expect(relativeError(out, exact)).toBeLessThanOrEqual(4 * ulp[dtype]);
    }
  }
});

test('reads a column of a wider array, and every row alone gives the same bits', async () => {
  const wide = tensorOf(seeded(4).normal([7, 50]), 'bfloat16');
  const view = (from: number, rows: number) => wide.view([rows, 2, 17], 5 + from * 50, 50);
  for (const name of featureMaps) {
    const all = await bitsOf([featureMap({ x: view(0, 7), name })]);
    const rows = [0, 1, 2, 3, 4, 5, 6].map((t) => featureMap({ x: view(t, 1), name }));
    expect((await bitsOf(rows)).equals(all)).toBe(true);
  }
});

describe("the authors' code", () => {
  const golden = readGolden('mechanisms/feature-maps');
  const array = (name: string): NdArray => {
    const { shape, data } = golden.float32(name);
    return nd(shape, data);
  };
  const x = array('x');

  test.each([
    ['elu1', { name: 'elu1' }],
    ['hedgehog_joint', { name: 'hedgehogJoint' }],
    ['hedgehog_split', { name: 'hedgehogSplit', floor: 1e-12 }],
    ['dpfp', { name: 'dpfp', order: 2 }],
  ] as const)('%s', async (name, map) => {
    const out = await readNd(featureMap({ x: tensorOf(x, 'float32'), ...map }));
    expect(relativeError(out, array(name))).toBeLessThanOrEqual(8 * ulp.float32);
  });

  test('taylor: the same products of features as with each product of two twice', async () => {
    const full = array('taylor');
    const packed = await readNd(featureMap({ x: tensorOf(x, 'float32'), name: 'taylor' }));
    const products = ({ shape, data }: NdArray): NdArray => {
      const [T, H, F] = shape as [number, number, number];
      const out = nd([T, T, H]);
      for (let i = 0; i < out.data.length; i++) {
        const [a, b, h] = [Math.floor(i / (T * H)), Math.floor(i / H) % T, i % H];
        for (let f = 0; f < F; f++) out.data[i]! += data[(a * H + h) * F + f]! * data[(b * H + h) * F + f]!;
      }
      return out;
    };
    expect(relativeError(products(packed), products(full))).toBeLessThanOrEqual(8 * ulp.float32);
  });
});

const zeros = (...shape: number[]) => tensorOf(nd(shape), 'float32');
test.each([
  ['rank', { x: zeros(2, 8), name: 'elu1' }, 'ERR_SHAPE', /x must be \[T, H, D\], got \[2, 8\]/],
  ['dtype', { x: tensorOf(nd([1, 1, 8]), 'int32'), name: 'elu1' }, 'ERR_DTYPE', /got int32/],
  ['name', { x: zeros(1, 1, 8), name: 'cosine' }, 'ERR_ARGUMENT', /name must be one of identity, .*, got 'cosine'/],
  ['width', { x: zeros(1, 1, 1025), name: 'elu1' }, 'ERR_UNSUPPORTED', /D must be from 1 to 1024, got 1025/],
  ['empty width', { x: zeros(1, 1, 0), name: 'elu1' }, 'ERR_UNSUPPORTED', /got 0/],
  ['scale', { x: zeros(1, 1, 8), name: 'exp', scale: NaN }, 'ERR_ARGUMENT', /scale must be a number, got NaN/],
  ['floor', { x: zeros(1, 1, 8), name: 'elu1', floor: 1 }, 'ERR_ARGUMENT', /floor must be 0 for elu1, got 1/],
  ['negative floor', { x: zeros(1, 1, 8), name: 'softmax', floor: -1 }, 'ERR_ARGUMENT', /floor must be a number of 0/],
  ['order', { x: zeros(1, 1, 2), name: 'dpfp', order: 4 }, 'ERR_ARGUMENT', /order must be from 1 to 3 for dpfp/],
  ['order of another', { x: zeros(1, 1, 8), name: 'relu', order: 2 }, 'ERR_ARGUMENT', /order must be from 1 to 1/],
] as const)('refuses another %s', (_, input, code, message) => {
  expect(() => featureMap(input as Parameters<typeof featureMap>[0])).toThrow(
    expect.objectContaining({ code, op: 'featureMap', message: expect.stringMatching(message) }),
  );
});
