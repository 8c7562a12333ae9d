// featureMap: the maps of linear attention that need no randomness. A learned projection stands before any of them.
import { linattnError, shown } from '../errors';
import type { Tensor } from '../tensor/tensor';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('featureMap', {
  x: 'in',
  out: 'out',
  map: 'number',
  order: 'number',
  scale: 'number',
  floor: 'number',
});

/** The order is that of FeatureKind in native/ops/feature-map.h. */
export const featureMaps = [
  'identity',
  'elu1',
  'relu',
  'squaredRelu',
  'exp',
  'softmax',
  'hedgehogSplit',
  'hedgehogJoint',
  'taylor',
  'dpfp',
] as const;

/**
 * With y = scale x, of D values:
 *
 * - identity: y
 * - elu1: elu(y) + 1 (https://arxiv.org/abs/2006.16236)
 * - relu, squaredRelu: max(y, 0) and its square. T2R (2103.13076) is relu behind a learned projection.
 * - exp: e^y
 * - softmax: softmax(y) over D
 * - hedgehogSplit: [softmax(y), softmax(-y)], as LoLCATs (2410.10254) has Hedgehog (2402.04347)
 * - hedgehogJoint: softmax([2 y, -2 y]), as flash-linear-attention has it: another map than hedgehogSplit
 * - taylor: [1, y, y_i^2 / sqrt(2) and y_i y_j for j > i], so that phi(q).phi(k) = 1 + s + s^2 / 2 with s = scale^2 q.k
 *   (Based, 2402.18668), each product once
 * - dpfp: with r = relu([y, -y]) the products r_i r_(i - j), indices modulo 2 D, for j = 1 to order (2102.11174)
 */
export type FeatureMapName = (typeof featureMaps)[number];

export interface FeatureMapOptions {
  readonly name: FeatureMapName;
  /** Factor of x: 1 by default, for taylor D^(-1/4). */
  readonly scale?: number | undefined;
  /** softmax and the hedgehogs: no feature is below it; 0 by default, 1e-12 in LoLCATs. */
  readonly floor?: number | undefined;
  /** dpfp: 1 by default, below 2 D. */
  readonly order?: number | undefined;
}

const widest = 1024;

/**
 * Features of a map of D values, without the zeros behind them.
 * @throws LinattnError ERR_ARGUMENT
 */
export function featureCount(name: FeatureMapName, D: number, order = 1): number {
  const check = (holds: boolean, message: string): void => {
    if (!holds) throw linattnError('ERR_ARGUMENT', `featureCount: ${message}`);
  };
  check(featureMaps.includes(name), `name must be one of ${featureMaps.join(', ')}, got '${shown(name)}'`);
  check(Number.isSafeInteger(D) && D >= 1, `D must be a whole number from 1, got ${shown(D)}`);
  check(Number.isSafeInteger(order) && order >= 1, `order must be a whole number from 1, got ${shown(order)}`);
  if (name === 'taylor') return 1 + D + (D * (D + 1)) / 2;
  if (name === 'dpfp') return 2 * D * order;
  return name === 'hedgehogSplit' || name === 'hedgehogJoint' ? 2 * D : D;
}

/** Features as linearAttention takes them: a multiple of 8. */
export const paddedWidth = (features: number): number => Math.ceil(features / 8) * 8;

/**
 * The features of each head's vector, then zeros up to a multiple of 8, since linearAttention takes such widths. Computed
 * in float32; a vector's features depend on nothing else.
 * @param x [T, H, D] float32, bfloat16 or float16, D from 1 to 1024; the stride of T is free
 * @returns [T, H, F] of x's dtype, F = paddedWidth(featureCount(name, D, order))
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; ERR_UNSUPPORTED for D beyond 1024
 */
export function featureMap<D extends Float>(input: { x: Tensor<D> } & FeatureMapOptions): Tensor<D> {
  const { x, ...map } = op.input(input);
  const { name, floor = 0, order = 1 } = map;
  const [T, H, D] = op.shape('x', x, ['T', 'H', 'D']) as [number, number, number];
  op.dtype('x', x, floats);
  const number = featureMaps.indexOf(name);
  op.check(number >= 0, `name must be one of ${featureMaps.join(', ')}, got '${shown(name)}'`);
  if (D < 1 || D > widest) throw op.error('ERR_UNSUPPORTED', `D must be from 1 to ${widest}, got ${shown(D)}`);
  const { scale = name === 'taylor' ? D ** -0.25 : 1 } = map;
  op.check(Number.isFinite(scale), `scale must be a number, got ${shown(scale)}`);
  const floored = name === 'softmax' || name === 'hedgehogSplit' || name === 'hedgehogJoint';
  op.check(
    Number.isFinite(floor) && floor >= 0 && (floored || floor === 0),
    `floor must be ${floored ? 'a number of 0 or more' : `0 for ${name}`}, got ${shown(floor)}`,
  );
  const most = name === 'dpfp' ? 2 * D - 1 : 1;
  op.check(
    Number.isSafeInteger(order) && order >= 1 && order <= most,
    `order must be from 1 to ${most} for ${name} of D = ${D}, got ${shown(order)}`,
  );
  const out = op.output(x, x.dtype, [T, H, paddedWidth(featureCount(name, D, order))]);
  op.run({ x, out, map: number, order, scale, floor });
  return out;
}

/** In float64, without the zeros behind the features. */
export function featureMapReference(x: NdArray, map: FeatureMapOptions): NdArray {
  const [T, H, D] = x.shape as [number, number, number];
  const { name, floor = 0, order = 1, scale = name === 'taylor' ? D ** -0.25 : 1 } = map;
  const F = featureCount(name, D, order);
  const out = nd([T, H, F]);
  for (let row = 0; row < T * H; row++) {
    const y = Array.from(x.data.subarray(row * D, (row + 1) * D), (value) => value * scale);
    out.data.set(featuresOf(y, name, floor, order), row * F);
  }
  return out;
}

const softmax = (y: readonly number[]): number[] => {
  const top = Math.max(...y);
  const exps = y.map((value) => Math.exp(value - top));
  const total = exps.reduce((sum, value) => sum + value, 0);
  return exps.map((value) => value / total);
};

function featuresOf(y: readonly number[], name: FeatureMapName, floor: number, order: number): number[] {
  const relu = (value: number): number => Math.max(value, 0);
  const floored = (values: number[]): number[] => values.map((value) => Math.max(value, floor));
  const negative = y.map((value) => -value);
  switch (name) {
    case 'identity':
      return [...y];
    case 'elu1':
      return y.map((value) => (value > 0 ? value + 1 : Math.exp(value)));
    case 'relu':
      return y.map(relu);
    case 'squaredRelu':
      return y.map((value) => relu(value) ** 2);
    case 'exp':
      return y.map(Math.exp);
    case 'softmax':
      return floored(softmax(y));
    case 'hedgehogSplit':
      return floored([...softmax(y), ...softmax(negative)]);
    case 'hedgehogJoint':
      return floored(softmax([...y, ...negative].map((value) => 2 * value)));
    case 'taylor': {
      const products = y.flatMap((a, i) => y.slice(i).map((b, j) => (j === 0 ? (a * a) / Math.SQRT2 : a * b)));
      return [1, ...y, ...products];
    }
    case 'dpfp': {
      const r = [...y, ...negative].map(relu);
      const rolls = Array.from({ length: order }, (_, j) => r.map((_value, i) => r.at(i - j - 1)!));
      return rolls.flatMap((rolled) => rolled.map((value, i) => value * r[i]!));
    }
  }
}

/** Of T x H vectors of D elements of `width` bytes; exponentials count 10. */
export function featureMapCost(sizes: { T: number; H: number; D: number; width: number }, map: FeatureMapOptions) {
  const rows = sizes.T * sizes.H;
  const features = featureCount(map.name, sizes.D, map.order);
  const each = { identity: 1, relu: 2, squaredRelu: 3, taylor: 1, dpfp: 1 }[map.name as 'relu'] ?? 20;
  return {
    bytes: rows * (sizes.D + paddedWidth(features)) * sizes.width,
    flops: rows * (sizes.D + features * each),
  };
}
