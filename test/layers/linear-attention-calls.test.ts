// Rules and decays that a call of LinearAttention brings, and what it refuses.
import { alibiSlopes } from '../../lib/layers/alibi';
import { LinearAttention, type LinearAttentionOptions } from '../../lib/layers/linear-attention';
import { FavorProjection } from '../../lib/ops/favor-projection';
import { featureMapReference } from '../../lib/ops/feature-map';
import { type NdArray, nd } from '../../lib/ops/reference';
import { uniformSequences } from '../../lib/ops/sequences';
import { readNd, relativeError, rounded, seeded, tensorOf, ulp } from '../support/arrays';

const [T, H, D, V] = [75, 2, 16, 24];
const float32 = (array: NdArray) => tensorOf(array, 'float32');
const projection = FavorProjection.draw({ directions: 32, width: D, seed: 0 });
const slopes = nd([H], alibiSlopes(H));
const alibi = {
  per: 'head',
  g: float32(
    nd(
      [H],
      slopes.data.map((slope) => -slope),
    ),
  ),
} as const;
const random = seeded(2);
const plain = {
  q: rounded(random.normal([T, H, D]), 'float32'),
  k: rounded(random.normal([T, H, D]), 'float32'),
  v: rounded(random.normal([T, H, V]), 'float32'),
};

describe('rules and decays of a call', () => {
  test('reach linearAttention', async () => {
    const g = rounded(seeded(5).uniform([T, H], -1, 0), 'float32');
    const beta = rounded(seeded(6).uniform([T, H]), 'float32');
    const layer = new LinearAttention({ featureMap: { name: 'softmax' }, rule: 'delta', decay: { per: 'token' } });
    const { q, k, v } = plain;
    const out = layer.forward({
      q: float32(q),
      k: float32(k),
      v: float32(v),
      decay: float32(g),
      beta: float32(beta),
      sequences: uniformSequences(1, T),
    });
    const [a, b] = [featureMapReference(q, { name: 'softmax' }), featureMapReference(k, { name: 'softmax' })];
    const exact = nd([T, H, V]);
    for (let h = 0; h < H; h++) {
      const S = nd([V, D]).data;
      for (let t = 0; t < T; t++) {
        const at = t * H + h;
        for (let r = 0; r < V; r++) {
          const s = S.subarray(r * D, (r + 1) * D);
          s.set(s.map((x) => x * Math.exp(g.data[at]!)));
          const seen = s.reduce((sum, x, c) => sum + x * b.data[at * D + c]!, 0);
          const u = beta.data[at]! * (v.data[at * V + r]! - seen);
          s.set(s.map((x, c) => x + u * b.data[at * D + c]!));
          exact.data[at * V + r] = s.reduce((sum, x, c) => sum + x * a.data[at * D + c]!, 0);
        }
      }
    }
    expect(relativeError(await readNd(out), exact)).toBeLessThanOrEqual(16 * ulp.float32);
  });
});

describe('refuses', () => {
  const favor = { name: 'favor', projection } as const;
  const other = FavorProjection.draw({ directions: 8, width: D, seed: 1 });
  test.each([
    [
      'normalize with a delta rule',
      { normalize: { eps: 0 }, rule: 'delta' },
      'ERR_ARGUMENT',
      /needs the rule 'additive'/,
    ],
    ['a scale with normalize', { normalize: { eps: 0 }, scale: 2 }, 'ERR_ARGUMENT', /scale must be 1 with normalize/],
    ['favor without normalize', { featureMap: favor }, 'ERR_ARGUMENT', /favor must have normalize: what its maxima/],
    [
      'two projections',
      { featureMap: favor, keyFeatureMap: { name: 'favor', projection: other }, normalize: { eps: 0 } },
      'ERR_ARGUMENT',
      /must have one projection/,
    ],
    [
      'favor with a decay per channel',
      { featureMap: favor, normalize: { eps: 0 }, decay: { per: 'channel' } },
      'ERR_UNSUPPORTED',
      /a decay per head or token, got per channel/,
    ],
    ['a learned relative bias', { relativeBias: [] }, 'ERR_UNSUPPORTED', /is no recurrence of constant size/],
  ] as const)('%s', (_, options, code, message) => {
    expect(() => new LinearAttention(options as LinearAttentionOptions)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  const call = { q: float32(plain.q), k: float32(plain.k), v: float32(plain.v), sequences: uniformSequences(1, T) };
  const weights = [] as const;
  test.each([
    ['a decay that is missing', { decay: { per: 'token' } }, 'ERR_ARGUMENT', /decay must be given, per token/],
    ['beta that is missing', { rule: 'delta' }, 'ERR_ARGUMENT', /beta must be given/],
    ['a and b that are missing', { rule: 'lowRank' }, 'ERR_ARGUMENT', /a and b must be given/],
    [
      'eps of a causal favor',
      { featureMap: { ...favor, eps: 1e-4 }, normalize: { eps: 0 } },
      'ERR_UNSUPPORTED',
      /needs the maximum of the whole sequence, future included/,
    ],
    [
      'a projection of no weight',
      { featureMap: { name: 'relu', projection: { weights } } },
      'ERR_ARGUMENT',
      /must have 1 weight or one for each of 2 heads, got 0/,
    ],
  ] as const)('%s', (_, options, code, message) => {
    const layer = new LinearAttention(options as LinearAttentionOptions);
    expect(() => layer.forward(call)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  test('a decay that the layer has none of, and what has an order in bidirectional attention', () => {
    const decay = float32(nd([T, H]));
    expect(() => new LinearAttention().forward({ ...call, decay })).toThrow(
      expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(/the layer has none by call/) }),
    );
    for (const options of [{ decay: alibi }, { rule: 'delta' }] as const) {
      expect(() => new LinearAttention(options).bidirectional(call)).toThrow(
        expect.objectContaining({ code: 'ERR_UNSUPPORTED', message: expect.stringMatching(/has no order/) }),
      );
    }
  });

  test('a saved state that is incomplete, of another kind or size', async () => {
    const layer = new LinearAttention({ normalize: { eps: 0 } });
    const saved = await layer.createState({ slots: 1, heads: 1, keyWidth: 8, valueWidth: 8 }).save();
    using own = layer.createState({ slots: 1, heads: 1, keyWidth: 8, valueWidth: 8 });
    for (const keySum of [undefined, [...saved.keySum!]]) {
      expect(() => own.restore({ ...saved, keySum } as unknown as typeof saved)).toThrow(
        expect.objectContaining({ code: 'ERR_DTYPE', message: expect.stringMatching(/keySum must be a Float32Array/) }),
      );
    }
    using larger = layer.createState({ slots: 2, heads: 1, keyWidth: 8, valueWidth: 8 });
    expect(() => larger.restore(saved)).toThrow(
      expect.objectContaining({
        code: 'ERR_SHAPE',
        message: expect.stringMatching(/state must have 128 values, got 64/),
      }),
    );
  });
});
