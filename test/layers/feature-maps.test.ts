// Learned projections before a map, against float64 and flash-linear-attention's T2R.
import { queryFeatures } from '../../lib/layers/feature-maps';
import { featureMapReference } from '../../lib/ops/feature-map';
import { matmulReference } from '../../lib/ops/matmul';
import { weightFrom } from '../../lib/ops/pack-weight';
import { type NdArray, nd } from '../../lib/ops/reference';
import { uniformSequences } from '../../lib/ops/sequences';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';
import { readGolden } from '../support/golden';

const float32 = (array: NdArray) => tensorOf(array, 'float32');

test('T2R of fla: relu(W x + b)', async () => {
  const golden = readGolden('mechanisms/feature-maps');
  const array = (name: string): NdArray => nd(golden.float32(name).shape, golden.float32(name).data);
  const projection = {
    weights: [weightFrom(float32(array('t2r_weight')), 'float32')],
    biases: [float32(array('t2r_bias'))],
  };
  const out = queryFeatures(float32(array('x')), { name: 'relu', projection }, uniformSequences(1, 9));
  expect(relativeError(await readNd(out), array('t2r'))).toBeLessThanOrEqual(8 * ulp.float32);
});

test.each([false, true])(
  'a projection of each head, with biases: %s; x is a column of a wider array',
  async (biased) => {
    const [T, H, D, F] = [7, 3, 16, 12];
    const random = seeded(3);
    const wide = rounded(random.normal([T, H * D + 5]), 'float32');
    const x = nd([T, H, D]);
    for (let t = 0; t < T; t++)
      x.data.set(wide.data.subarray(t * (H * D + 5) + 2, t * (H * D + 5) + 2 + H * D), t * H * D);
    const heads = Array.from({ length: H }, () => ({
      weight: rounded(random.normal([F, D]), 'float32'),
      bias: rounded(random.normal([F]), 'float32'),
    }));
    const projection = {
      weights: heads.map(({ weight }) => weightFrom(float32(weight), 'float32')),
      biases: biased ? heads.map(({ bias }) => float32(bias)) : undefined,
    };
    const view = float32(wide).view([T, H, D], 2, H * D + 5);
    const out = await readNd(queryFeatures(view, { name: 'hedgehogSplit', projection }, uniformSequences(1, T)));
    const y = nd([T, H, F]);
    for (let t = 0; t < T; t++) {
      heads.forEach(({ weight, bias }, h) => {
        const row = nd([1, D], x.data.subarray((t * H + h) * D, (t * H + h + 1) * D));
        y.data.set(matmulReference(row, weight, biased ? bias : undefined).data, (t * H + h) * F);
      });
    }
    expect(relativeError(out, featureMapReference(y, { name: 'hedgehogSplit' }))).toBeLessThanOrEqual(32 * ulp.float32);
  },
);

test('refuses as many biases as there are not weights', () => {
  const weight = weightFrom(float32(nd([8, 8])), 'float32');
  const call = () =>
    queryFeatures(
      float32(nd([1, 2, 8])),
      { name: 'relu', projection: { weights: [weight], biases: [] } },
      uniformSequences(1, 1),
    );
  expect(call).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/biases as weights, 1, got 0/) }),
  );
});
