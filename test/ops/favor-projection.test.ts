// The directions of FAVOR+: what a draw is, and what its estimate of e^(x.y) is worth, against theory.
import { createHash } from 'node:crypto';
import { drawFavorDirections, FavorProjection } from '../../lib/ops/favor-projection';
import { seeded } from '../support/arrays';

const D = 16;
function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
const rowsOf = (W: Float64Array, width = D) =>
  Array.from({ length: W.length / width }, (_, m) => W.subarray(m * width, (m + 1) * width));

describe('a draw', () => {
  test.each(['gaussian', 'constant'] as const)('has orthogonal blocks, norms %s', (norms) => {
    const rows = rowsOf(drawFavorDirections({ directions: 40, width: D, seed: 5, norms }));
    expect(rows).toHaveLength(40);
    rows.forEach((a, i) => {
      rows.slice(0, i).forEach((b, j) => {
        if (Math.floor(i / D) !== Math.floor(j / D)) return;
        expect(Math.abs(dot(a, b)) / Math.sqrt(dot(a, a) * dot(b, b))).toBeLessThan(1e-14);
      });
      if (norms === 'constant') expect(dot(a, a)).toBeCloseTo(D, 12);
    });
    expect(Math.abs(dot(rows[0]!, rows[D]!))).toBeGreaterThan(1e-3); // blocks are independent of each other
  });

  test.each([true, false])('has the moments of Gaussian rows, orthogonal: %s', (orthogonal) => {
    const W = drawFavorDirections({ directions: 4000, width: D, seed: 9, orthogonal });
    const count = W.length;
    const moment = (power: number) => W.reduce((sum, w) => sum + w ** power, 0) / count;
    // 5 standard errors of 64000 values (fewer are independent within an orthogonal block, with less spread).
    expect(Math.abs(moment(1))).toBeLessThan(5 * count ** -0.5);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(5 * (2 / count) ** 0.5);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(5 * (96 / count) ** 0.5);
    const norms = rowsOf(W).map((row) => dot(row, row));
    const mean = norms.reduce((sum, norm) => sum + norm, 0) / norms.length;
    const variance = norms.reduce((sum, norm) => sum + (norm - mean) ** 2, 0) / norms.length;
    expect(Math.abs(variance / (2 * D) - 1)).toBeLessThan(0.2); // chi squared of D has the variance 2 D
  });

  test('is a function of its arguments: version 1 keeps its bits', () => {
    const digest = (orthogonal: boolean, seed: number) => {
      const W = drawFavorDirections({ directions: 24, width: D, seed, orthogonal });
      return createHash('sha256').update(Buffer.from(W.buffer)).digest('hex').slice(0, 16);
    };
    expect([digest(true, 1), digest(false, 1), digest(true, 2 ** 40 + 1)]).toEqual([
      '6feff3ebe0eb5bc3',
      'f3bd9d7dc225ab0f',
      'e327d8d92f0cbf39',
    ]);
    const more = drawFavorDirections({ directions: 32, width: D, seed: 1 });
    const fewer = drawFavorDirections({ directions: 24, width: D, seed: 1 });
    expect(more.subarray(0, fewer.length)).toEqual(fewer);
  });

  test.each([
    ['no directions', { directions: 0 }, 'ERR_ARGUMENT', /directions must be a whole number from 1, got 0/],
    ['directions without end', { directions: 2 ** 40 }, 'ERR_ARGUMENT', /directions x width must be at most/],
    ['no width', { width: 1.5 }, 'ERR_ARGUMENT', /width must be a whole number from 1, got 1.5/],
    ['another seed', { seed: -1 }, 'ERR_ARGUMENT', /seed must be a whole number from 0/],
    ['other norms', { norms: 'unit' }, 'ERR_ARGUMENT', /norms must be gaussian or constant, got 'unit'/],
    ['another version', { version: 2 }, 'ERR_UNSUPPORTED', /version must be 1, got 2; give the directions/],
    ['another kind', { kind: 'cosine' }, 'ERR_ARGUMENT', /kind must be positive or hyperbolic or relu, got 'cosine'/],
    ['another scale', { scale: NaN }, 'ERR_ARGUMENT', /scale must be a number, got NaN/],
  ] as const)('refuses %s', (_, change, code, message) => {
    const draw = { directions: 8, width: D, seed: 1, ...change } as Parameters<typeof FavorProjection.draw>[0];
    expect(() => FavorProjection.draw(draw)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });

  test('says what it was drawn with, and is drawn again by another seed', () => {
    const options = { directions: 8, width: D, norms: 'constant', kind: 'hyperbolic', scale: 0.3 } as const;
    using first = FavorProjection.draw({ ...options, seed: 1 });
    expect(first.drawn).toEqual({ directions: 8, width: D, norms: 'constant', orthogonal: true, seed: 1, version: 1 });
    using second = first.redraw(2);
    const { drawn, kind, scale, features } = second;
    expect({ drawn, kind, scale, features }).toEqual({
      drawn: { ...first.drawn, seed: 2 },
      kind: 'hyperbolic',
      scale: 0.3,
      features: 16,
    });
    using stored = FavorProjection.from(new Float32Array(8), { directions: 2, width: 4 });
    expect(() => stored.redraw(1)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });

  test('stored directions are refused in another shape', () => {
    expect(() => FavorProjection.from(new Float32Array(9), { directions: 2, width: 4 })).toThrow(
      expect.objectContaining({ code: 'ERR_SHAPE', message: expect.stringMatching(/= \[2, 4\], got 9 values/) }),
    );
  });
});

/** Two vectors of norm `size` at an angle of this cosine. Where |x + y| is large the errors have heavy tails. */
function pair(size: number, cosine: number): [Float64Array, Float64Array] {
  const random = seeded(1 + size);
  const x = random.normal([D]).data;
  const y = random.normal([D]).data;
  const along = dot(x, y) / dot(x, x);
  const across = y.map((value, d) => value - along * x[d]!);
  const [a, b] = [Math.sqrt(dot(x, x)), Math.sqrt(dot(across, across))];
  const sine = Math.sqrt(1 - cosine * cosine);
  return [x.map((v) => (v / a) * size), x.map((v, d) => ((v / a) * cosine + (across[d]! / b) * sine) * size)];
}

/** Mean squared error of phi(x).phi(y) as an estimate of e^(x.y) over draws, and its standard error. */
function measured(x: Float64Array, y: Float64Array, m: number, draws: readonly Float64Array[], hyperbolic = false) {
  const z = x.map((value, d) => value + y[d]!);
  const norms = (dot(x, x) + dot(y, y)) / 2;
  const exact = Math.exp(dot(x, y));
  const errors = draws.map((W) => {
    const terms = rowsOf(W)
      .slice(0, m)
      .map((w) => (hyperbolic ? Math.cosh(dot(w, z)) : Math.exp(dot(w, z))) * Math.exp(-norms));
    return (terms.reduce((sum, term) => sum + term, 0) / m - exact) ** 2;
  });
  const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
  const spread = errors.reduce((sum, error) => sum + (error - mean) ** 2, 0) / (errors.length - 1);
  return { mean, deviation: Math.sqrt(spread / errors.length) };
}

/**
 * Of m <= D orthogonal directions with Gaussian norms. The mean of e^((w1 + w2).z) for two of them: |w1 + w2|^2 is chi
 * squared of 2 D, the direction of w1 + w2 uniform, so with s = |z|^2 it is sum_k s^k / k! prod_(j<k) (D + j) / (D + 2 j).
 */
function orthogonalError(x: Float64Array, y: Float64Array, m: number): number {
  const s = dot(x, x) + 2 * dot(x, y) + dot(y, y);
  let both = 0;
  for (let k = 0, term = 1; k < 60; k++) {
    both += term;
    term *= (s / (k + 1)) * ((D + k) / (D + 2 * k));
  }
  const mean = Math.exp(s);
  return (Math.exp(-dot(x, x) - dot(y, y)) * (Math.exp(2 * s) - mean + (m - 1) * (both - mean))) / m;
}

const independentError = (x: Float64Array, y: Float64Array, m: number): number =>
  (Math.exp(2 * dot(x, y)) * Math.expm1(dot(x, x) + 2 * dot(x, y) + dot(y, y))) / m;

describe('mean squared error of the estimate of e^(x.y)', () => {
  const drawn = (orthogonal: boolean) =>
    Array.from({ length: 500 }, (_, seed) => drawFavorDirections({ directions: 32, width: D, seed, orthogonal }));
  const orthogonal = drawn(true);
  const independent = drawn(false);

  describe.each([
    [0.5, 0],
    [0.5, 0.8],
    [0.7, -0.2],
    [1, -0.6],
  ])('norms %d, cosine %d', (size, cosine) => {
    const [x, y] = pair(size, cosine);

    test.each([1, 5, 16, 32])('is the theory within its sampling error, m = %i', (m) => {
      const iid = measured(x, y, m, independent);
      expect(Math.abs(iid.mean - independentError(x, y, m))).toBeLessThan(4 * iid.deviation);
      const blocks = Math.max(1, m / D);
      const theory = orthogonalError(x, y, Math.min(m, D)) / blocks;
      const orth = measured(x, y, m, orthogonal);
      expect(Math.abs(orth.mean - theory)).toBeLessThan(4 * orth.deviation);
      // The bound of the Performer paper, for m <= D.
      const gain = Math.exp(dot(x, y)) - Math.exp(-(dot(x, x) + dot(y, y)) / 2);
      const bound = independentError(x, y, m) - ((2 * (m - 1)) / (m * (D + 2))) * gain ** 2;
      if (m <= D) expect(theory).toBeLessThanOrEqual(bound * (1 + 1e-12));
    });

    test('of the hyperbolic features too', () => {
      const s = dot(x, x) + 2 * dot(x, y) + dot(y, y);
      const { mean, deviation } = measured(x, y, 16, independent, true);
      expect(Math.abs(mean - (independentError(x, y, 16) * -Math.expm1(-s)) / 2)).toBeLessThan(4 * deviation);
    });
  });
});
