// lightningDecays against the formulas as their sources write them.
import { alibiSlopes, lightningDecays } from '../../lib';

const at = (layer: number) => ({ heads: 8, layer, layers: 12 });

test('minimax: the slopes of ALiBi, weaker from layer to layer', () => {
  // transformers models/minimax: base ** (h + 1) * (1 - l / (L - 1 + 1e-5) + 1e-5)
  const decays = lightningDecays('minimax', at(3));
  decays.forEach((decay, h) => void expect(decay).toBeCloseTo(-(0.5 ** (h + 1)) * (1 - 3 / 11.00001 + 1e-5), 14));
});

test('fla: a line over the heads', () => {
  // fla/ops/lightning_attn: -(8 / H * (1 - layer_idx / num_layers)) * arange(H)
  expect(lightningDecays('fla', at(3))).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((h) => -(8 / 8) * (1 - 3 / 12) * h));
});

test('ring: those of ALiBi for any number of heads; the first two layers are alike', () => {
  const sizes = { heads: 12, layers: 4 };
  const first = lightningDecays('ring', { ...sizes, layer: 0 });
  expect(first).toEqual(alibiSlopes(12).map((slope) => -slope * (1 + 1e-5)));
  expect(lightningDecays('ring', { ...sizes, layer: 1 })).toEqual(first);
  lightningDecays('ring', { ...sizes, layer: 3 }).forEach(
    (decay, h) => void expect(decay).toBeCloseTo(-alibiSlopes(12)[h]! * (1 - 2 / 3 + 1e-5), 14),
  );
});

test('decays are below 1 in every layer, also of a model of one layer', () => {
  for (const formula of ['minimax', 'fla', 'ring'] as const) {
    for (const layers of [1, 2, 80]) {
      for (let layer = 0; layer < layers; layer++) {
        for (const decay of lightningDecays(formula, { heads: 5, layer, layers })) expect(decay).toBeLessThanOrEqual(0);
      }
    }
  }
});

test.each([
  [{ heads: 0, layer: 0, layers: 1 }, /heads must be a whole number from 1/],
  [{ heads: 4, layer: 2, layers: 2 }, /layer one of 0 to layers - 1; got heads 4, layer 2 of 2/],
  [{ heads: 4, layer: -1, layers: 2 }, /layer one of/],
])('%j is refused', (sizes, message) => {
  expect(() => lightningDecays('minimax', sizes)).toThrow(
    expect.objectContaining({ code: 'ERR_ARGUMENT', message: expect.stringMatching(message) }),
  );
});

test('another formula is refused', () => {
  expect(() => lightningDecays('retnet' as 'fla', at(0))).toThrow(
    expect.objectContaining({
      code: 'ERR_ARGUMENT',
      message: expect.stringContaining('minimax or fla or ring, got retnet'),
    }),
  );
});
