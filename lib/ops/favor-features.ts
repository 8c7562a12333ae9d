// favorFeatures: the random features of FAVOR+ (Performer, https://arxiv.org/abs/2009.14794), kept in range by a maximum.
import { shown } from '../errors';
import { scope } from '../tensor/scope';
import type { Tensor } from '../tensor/tensor';
import { convert } from './convert';
import { FavorProjection, favorKinds } from './favor-projection';
import { paddedWidth } from './feature-map';
import { type Float, floats } from './float';
import { matmul } from './matmul';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';
import { Sequences, sequenceFields } from './sequences';

const op = defineOp('favorFeatures', {
  x: 'in',
  projected: 'optional',
  weights: 'optional',
  decay: 'optional',
  keyMax: 'inout',
  out: 'out',
  peak: 'out',
  logDecay: 'out',
  ...sequenceFields,
  kind: 'number',
  maximum: 'number',
  directions: 'number',
  scale: 'number',
  eps: 'number',
});

/**
 * Which maximum c is subtracted from the exponents, so that features are at most 1:
 *
 * - none: c = 0. The features are unbiased: phi(x).phi(y) has the mean e^(scale^2 x.y).
 * - token: of the vector itself, for queries: it cancels in a normalised output.
 * - running: of all vectors of the sequence so far, for keys of causal attention.
 * - sequence: of all vectors of the sequence, for keys of attention that is not causal. (In causal attention it would
 *   let the future change the past.)
 */
export type FavorMaximum = 'none' | 'token' | 'running' | 'sequence';

const maxima: readonly FavorMaximum[] = ['none', 'token', 'running', 'sequence'];

export interface FavorFeaturesInput<D extends Float> {
  /** [T, H, D] float32, bfloat16 or float16; the stride of T is free. */
  x: Tensor<D>;
  projection: FavorProjection;
  maximum: FavorMaximum;
  /** running: float32 [slots, H], the maximum so far, -Infinity at first; updated in place, the slot stride is free. */
  keyMax?: Tensor<'float32'> | undefined;
  /** running: float32 [H] or [T, H], a decay of the attention itself, which logDecay then includes (ALiBi, say). */
  decay?: Tensor<'float32'> | undefined;
  sequences: Sequences;
  /**
   * Added to each feature. token and sequence only, as the published code has it, whose maximum then is that of w.x alone;
   * 0 by default. It changes the result: exact streaming needs 0. For the kind 'relu', which has no maximum, always
   * allowed (1e-3 as published).
   */
  eps?: number | undefined;
}

export interface FavorFeatures<D extends Float> {
  /** [T, H, F] as x, F = features of the projection, then zeros up to a multiple of 8. */
  features: Tensor<D>;
  /** running: float32 [T, H], c of the token before minus c, plus `decay`: what linearAttention needs. */
  logDecay?: Tensor<'float32'>;
}

/**
 * With y = scale x, u = W y (in float32), n = |y|^2 / 2 and m features,
 *
 *     positive    phi_i = m^(-1/2) (e^(u_i - n - c) + eps)
 *     hyperbolic  phi   = m^(-1/2) ([e^(u - n - c), e^(-u - n - c)] + eps)
 *     relu        phi_i = max(u_i, 0) + eps          (a kernel of its own, no softmax; no c)
 *
 * A running maximum c_t rescales what is in the state: S and z decay by e^(c_(t-1) - c_t), which is exact as long as the
 * exponents of a sequence lie within 30 of the running maximum, where linearAttention clamps its decay; what lies further
 * below is under float32's precision unless a query sees nothing else. Any split of a sequence gives the same bits on the
 * CPU, and no later key changes an earlier output.
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; at execution ERR_ARGUMENT for slots that are out of range
 */
export function favorFeatures<D extends Float>(input: FavorFeaturesInput<D>): FavorFeatures<D> {
  const { x, projection, maximum, keyMax, decay, sequences, eps = 0 } = op.input(input);
  const [T, H] = op.shape('x', x, ['T', 'H', 'D']) as [number, number, number];
  op.dtype('x', x, floats);
  op.instance('sequences', sequences, Sequences);
  op.instance('projection', projection, FavorProjection);
  op.expect('x', x, x.dtype, { T: sequences.tokens, H, D: projection.width });
  const number = maxima.indexOf(maximum);
  op.check(number >= 0, `maximum must be one of ${maxima.join(', ')}, got '${shown(maximum)}'`);
  const relu = projection.kind === 'relu';
  op.check(!relu || maximum === 'none', `maximum must be none for the kind relu, got ${shown(maximum)}`);
  op.check(Number.isFinite(eps) && eps >= 0, `eps must be 0 or more, got ${shown(eps)}`);
  op.check(
    eps === 0 || relu || maximum === 'token' || maximum === 'sequence',
    `eps must be 0 with the maximum ${maximum}, where it is not exact, got ${shown(eps)}`,
  );
  if (keyMax !== undefined) {
    op.check(maximum === 'running', `keyMax needs the maximum running, got ${shown(maximum)}`);
    op.expect('keyMax', keyMax, 'float32', { slots: op.shape('keyMax', keyMax, ['slots', 'H'])[0]!, H });
  }
  if (decay !== undefined) {
    op.check(maximum === 'running', `decay needs the maximum running, got ${shown(maximum)}`);
    op.expect('decay', decay, 'float32', op.tensor('decay', decay).shape.length === 1 ? { H } : { T, H });
  }
  const { kind, scale, directions, features } = projection;
  return scope(() => {
    const product = multipliesItself(x, directions)
      ? { weights: projection.weight.data }
      : { projected: project(x, projection) };
    const out = op.output(x, x.dtype, [T, H, paddedWidth(features)]);
    const spread = maximum === 'running' || maximum === 'sequence';
    const peak = spread ? op.output(x, 'float32', [T, H]) : undefined;
    const logDecay = maximum === 'running' ? op.output(x, 'float32', [T, H]) : undefined;
    const tensors = { x, ...product, decay, keyMax, out, peak, logDecay };
    const numbers = { kind: favorKinds.indexOf(kind), maximum: number, directions, scale, eps };
    op.run({ ...tensors, ...sequences.record, ...numbers });
    return logDecay ? { features: out, logDecay } : { features: out };
  });
}

/** Whether the op takes the product with W too, on matrix units that have it exact to float32. */
const multipliesItself = ({ device, dtype, shape: [, , D = 0] }: Tensor, directions: number): boolean =>
  device !== 'cpu' &&
  dtype === 'bfloat16' &&
  D % 16 === 0 &&
  D <= 128 &&
  directions % 16 === 0 &&
  directions * D <= mostDirectionValues;

/** What is held of W beside the matrix units. */
const mostDirectionValues = 2 ** 14;

function project(x: Tensor<Float>, { weight, directions }: FavorProjection): Tensor<'float32'> {
  const [T, H, D] = x.shape as [number, number, number];
  const vectors = convert({ x, dtype: 'float32' }).view([T * H, D], 0, D);
  return matmul({ x: vectors, weight }).view([T, H, directions], 0, H * directions);
}

/**
 * In float64, of one sequence; W is [m, D]. `keyMax` by head for the maximum 'running'; returned as it is at the end.
 */
export function favorFeaturesReference(input: {
  x: NdArray;
  directions: NdArray;
  kind: FavorProjection['kind'];
  maximum: FavorMaximum;
  scale?: number;
  eps?: number;
  keyMax?: readonly number[];
}): { features: NdArray; logDecay: NdArray; keyMax: number[] } {
  const { x, directions: W, kind, maximum, eps = 0 } = input;
  const [T, H, D] = x.shape as [number, number, number];
  const m = W.shape[0]!;
  const { scale = D ** -0.25 } = input;
  const F = kind === 'hyperbolic' ? 2 * m : m;
  const features = nd([T, H, F]);
  const logDecay = nd([T, H]);
  const keyMax = input.keyMax ? [...input.keyMax] : new Array<number>(H).fill(Number.NEGATIVE_INFINITY);
  for (let h = 0; h < H; h++) {
    const rows = Array.from({ length: T }, (_, t) => {
      const y = Array.from(x.data.subarray((t * H + h) * D, (t * H + h + 1) * D), (value) => value * scale);
      const u = Array.from({ length: m }, (_value, i) =>
        y.reduce((sum, value, d) => sum + value * W.data[i * D + d]!, 0),
      );
      const both = kind === 'hyperbolic' ? [...u, ...u.map((value) => -value)] : u;
      const n = y.reduce((sum, value) => sum + value * value, 0) / 2;
      return { u: both, n, own: Math.max(...both) - (eps > 0 ? 0 : n) };
    });
    const whole = Math.max(...rows.map(({ own }) => own));
    rows.forEach(({ u, n, own }, t) => {
      const before = keyMax[h]!;
      if (maximum === 'running') keyMax[h] = Math.max(before, own);
      const c = { none: 0, token: own, running: keyMax[h]!, sequence: whole }[maximum];
      logDecay.data[t * H + h] = maximum === 'running' ? before - c : 0;
      const value = (exponent: number): number =>
        kind === 'relu' ? Math.max(exponent, 0) + eps : (Math.exp(exponent - n - c) + eps) / Math.sqrt(F);
      features.data.set(u.map(value), (t * H + h) * F);
    });
  }
  return { features, logDecay, keyMax };
}

/** Of T x H vectors of D elements of `width` bytes: the projection, then about 20 operations a feature. */
export function favorFeaturesCost(
  sizes: { T: number; H: number; D: number; width: number },
  projection: { directions: number; features: number },
) {
  const rows = sizes.T * sizes.H;
  const { directions, features } = projection;
  return {
    bytes: rows * ((sizes.D + features) * sizes.width + 8 * directions) + 4 * directions * sizes.D,
    flops: rows * (2 * sizes.D * directions + 20 * features),
  };
}
