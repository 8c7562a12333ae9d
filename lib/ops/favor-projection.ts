// The random directions of FAVOR+ (https://arxiv.org/abs/2009.14794): drawn by a seed, or given by a checkpoint.
import { checkOptions, linattnError, shown } from '../errors';
import { type DeviceName, defaultDevice } from '../tensor/device';
import { Tensor } from '../tensor/tensor';
import { weightFrom } from './pack-weight';
import { philox, unitInterval } from './philox';
import type { Weight } from './weight';

/** Of the draw: features of another version are other features, and a state that holds them is worth nothing. */
export const favorDrawVersion = 1;

/** positive: e^(w.x); hyperbolic: e^(w.x) and e^(-w.x); relu: max(w.x, 0). The order is that of FavorKind natively. */
export const favorKinds = ['positive', 'hyperbolic', 'relu'] as const;
export type FavorKind = (typeof favorKinds)[number];

export interface FavorDraw {
  /** Rows of W. */
  readonly directions: number;
  /** D, of the vectors that are projected. */
  readonly width: number;
  /** A whole number from 0 to 2^53 - 1. */
  readonly seed: number;
  /** Blocks of D orthogonal rows (the default), or independent rows. */
  readonly orthogonal?: boolean | undefined;
  /** Norm of a row: 'gaussian', that of a fresh Gaussian vector (the default, without bias), or 'constant', sqrt(D). */
  readonly norms?: 'gaussian' | 'constant' | undefined;
  /** The version the draw was made with; another than favorDrawVersion is ERR_UNSUPPORTED. */
  readonly version?: number | undefined;
}

/** log(x) for 0 < x < 1 by +, -, * and / alone, so that a draw has the same bits wherever it is made. */
function logarithm(x: number): number {
  let halvings = 0;
  let f = x;
  for (; f < Math.SQRT1_2; f *= 2) halvings++;
  const z = (f - 1) / (f + 1);
  let sum = 0;
  for (let n = 25; n > 0; n -= 2) sum = sum * z * z + 1 / n;
  return 2 * z * sum - halvings * Math.LN2;
}

/** Standard normal numbers of one stream of a seed: Philox4x32-10, then the polar method of Marsaglia. */
function normals(seed: number, stream: number): () => number {
  const key = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)] as const;
  let counter = 0;
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    for (;;) {
      const words = philox([counter++, stream, 0, 0], key);
      const a = 2 * unitInterval(words[0], words[1]) - 1;
      const b = 2 * unitInterval(words[2], words[3]) - 1;
      const s = a * a + b * b;
      if (s === 0 || s >= 1) continue;
      const factor = Math.sqrt((-2 * logarithm(s)) / s);
      spare = b * factor;
      return a * factor;
    }
  };
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/**
 * The Q' of QR of a D x D Gaussian matrix, with the signs that make R's diagonal positive (so Q is uniform over the
 * orthogonal matrices): its columns, orthogonalised one by one, each twice.
 */
function orthogonalRows(D: number, normal: () => number): Float64Array[] {
  const rows: Float64Array[] = [];
  while (rows.length < D) {
    const row = Float64Array.from({ length: D }, normal);
    for (let pass = 0; pass < 2; pass++) {
      for (const other of rows) {
        const along = dot(row, other);
        for (let i = 0; i < D; i++) row[i]! -= along * other[i]!;
      }
    }
    const size = Math.sqrt(dot(row, row));
    rows.push(row.map((value) => value / size));
  }
  return rows;
}

/** Values of a draw: two gigabytes while it is made. */
const most = 2 ** 28;

/**
 * W [directions, D] row by row, in float64. The same arguments give the same bits on every machine.
 * @throws LinattnError ERR_ARGUMENT, ERR_UNSUPPORTED
 */
export function drawFavorDirections(draw: FavorDraw): Float64Array {
  checkOptions('drawFavorDirections', draw);
  const { directions, width: D, seed, orthogonal = true, norms = 'gaussian', version = favorDrawVersion } = draw;
  const check = (holds: boolean, message: string): void => {
    if (!holds) throw linattnError('ERR_ARGUMENT', `drawFavorDirections: ${message}`);
  };
  const whole = (value: number, least: number): boolean => Number.isSafeInteger(value) && value >= least;
  check(whole(directions, 1), `directions must be a whole number from 1, got ${shown(directions)}`);
  check(whole(D, 1), `width must be a whole number from 1, got ${shown(D)}`);
  check(directions * D <= most, `directions x width must be at most ${most}, got ${directions * D}`);
  check(whole(seed, 0), `seed must be a whole number from 0 to 2^53 - 1, got ${shown(seed)}`);
  check(norms === 'gaussian' || norms === 'constant', `norms must be gaussian or constant, got '${shown(norms)}'`);
  check(typeof orthogonal === 'boolean', `orthogonal must be true or false, got ${shown(orthogonal)}`);
  if (version !== favorDrawVersion) {
    throw linattnError(
      'ERR_UNSUPPORTED',
      `drawFavorDirections: version must be ${favorDrawVersion}, got ${shown(version)}; give the directions as a tensor`,
    );
  }
  const direction = normals(seed, 0);
  const length = normals(seed, 1);
  const gaussian = (): Float64Array => Float64Array.from({ length: D }, direction);
  const out = new Float64Array(directions * D);
  let block: Float64Array[] = [];
  for (let m = 0; m < directions; m++) {
    if (orthogonal && m % D === 0) block = orthogonalRows(D, direction);
    const row = orthogonal ? block[m % D]! : gaussian();
    const own = Math.sqrt(dot(row, row));
    let wanted = own;
    if (norms === 'constant') {
      wanted = Math.sqrt(D);
    } else if (orthogonal) {
      const fresh = Float64Array.from({ length: D }, length);
      wanted = Math.sqrt(dot(fresh, fresh));
    }
    for (let d = 0; d < D; d++) out[m * D + d] = (row[d]! / own) * wanted;
  }
  return out;
}

export interface FavorProjectionOptions {
  /** 'positive' by default. */
  readonly kind?: FavorKind | undefined;
  /** Factor of x, for queries and keys alike: D^(-1/4) by default, so that the features stand for softmax(q.k / sqrt(D)). */
  readonly scale?: number | undefined;
  /** Of W; the default device. */
  readonly device?: DeviceName | undefined;
}

/** W, packed for products, with `scale` in it. It is a part of the model: states made with another W are not its states. */
export class FavorProjection implements Disposable {
  readonly kind: FavorKind;
  readonly directions: number;
  /** D */
  readonly width: number;
  readonly scale: number;
  /** directions, twice as many for 'hyperbolic'. */
  readonly features: number;
  /** What the directions were drawn with, the version included; absent for stored ones. */
  readonly drawn: FavorDraw | undefined;
  /** @internal scale W */
  readonly weight: Weight;

  private constructor(
    rows: ArrayLike<number>,
    directions: number,
    width: number,
    private readonly options: FavorProjectionOptions,
    drawn?: FavorDraw,
  ) {
    const { kind = 'positive', scale = width ** -0.25, device = defaultDevice() } = options;
    if (!favorKinds.includes(kind)) {
      throw linattnError(
        'ERR_ARGUMENT',
        `FavorProjection: kind must be ${favorKinds.join(' or ')}, got '${shown(kind)}'`,
      );
    }
    if (!Number.isFinite(scale)) {
      throw linattnError('ERR_ARGUMENT', `FavorProjection: scale must be a number, got ${shown(scale)}`);
    }
    this.kind = kind;
    this.directions = directions;
    this.width = width;
    this.scale = scale;
    this.drawn = drawn;
    this.features = kind === 'hyperbolic' ? 2 * directions : directions;
    const scaled = Float32Array.from(rows, (value) => value * scale);
    const source = Tensor.from(scaled, { dtype: 'float32', shape: [directions, width], device });
    this.weight = weightFrom(source, 'float32');
    source.dispose();
  }

  /**
   * Directions by a seed.
   * @throws LinattnError ERR_ARGUMENT, ERR_UNSUPPORTED
   */
  static draw(draw: FavorDraw & FavorProjectionOptions): FavorProjection {
    checkOptions('FavorProjection', draw);
    const { directions, width, seed, orthogonal = true, norms = 'gaussian' } = draw;
    const drawn = { directions, width, seed, orthogonal, norms, version: favorDrawVersion };
    return new FavorProjection(drawFavorDirections(draw), directions, width, draw, drawn);
  }

  /**
   * Other directions of the same kind, as training takes them from time to time. States made with these are not theirs.
   * @throws LinattnError ERR_ARGUMENT for stored directions
   */
  redraw(seed: number): FavorProjection {
    if (this.drawn === undefined) {
      throw linattnError('ERR_ARGUMENT', 'FavorProjection: stored directions cannot be drawn again');
    }
    return FavorProjection.draw({ ...this.options, ...this.drawn, seed });
  }

  /**
   * Directions that were stored, unscaled, row by row.
   * @param rows directions x width numbers
   * @throws LinattnError ERR_SHAPE, ERR_ARGUMENT
   */
  static from(
    rows: Float32Array | Float64Array,
    given: { directions: number; width: number } & FavorProjectionOptions,
  ): FavorProjection {
    checkOptions('FavorProjection', given);
    const { directions, width, ...options } = given;
    if (!(rows instanceof Float32Array || rows instanceof Float64Array)) {
      throw linattnError(
        'ERR_ARGUMENT',
        `FavorProjection: rows must be a Float32Array or Float64Array, got ${shown(rows)}`,
      );
    }
    if (!(directions >= 1 && width >= 1) || rows.length !== directions * width) {
      throw linattnError(
        'ERR_SHAPE',
        `FavorProjection: rows must be [directions, width] = [${directions}, ${width}], got ${rows.length} values`,
      );
    }
    return new FavorProjection(rows, directions, width, options);
  }

  /** Frees the packed directions. Idempotent. */
  dispose(): void {
    this.weight.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
