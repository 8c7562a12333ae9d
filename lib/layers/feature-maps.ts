// What a layer of linear attention does to queries and keys: a learned projection, then a map; or FAVOR+.
import { linattnError, shown } from '../errors';
import { convert, convertInto } from '../ops/convert';
import { type FavorMaximum, favorFeatures } from '../ops/favor-features';
import { FavorProjection } from '../ops/favor-projection';
import { type FeatureMapOptions, featureMap, featureMaps } from '../ops/feature-map';
import { matmul } from '../ops/matmul';
import type { Sequences } from '../ops/sequences';
import type { Weight } from '../ops/weight';
import { Tensor } from '../tensor/tensor';
import type { Hidden } from './layer';

/** y = W x + b for each head's vector. */
export interface HeadProjection {
  /** [F, D] each: one for all heads, or one a head. */
  readonly weights: readonly Weight[];
  /** float32 [F], as many as weights. */
  readonly biases?: readonly Tensor<'float32'>[] | undefined;
}

export interface FavorMap {
  readonly name: 'favor';
  readonly projection: FavorProjection;
  /** Of the kind 'relu' (1e-3 as published), or in bidirectional attention alone (1e-4 or 1e-6 as published). */
  readonly eps?: number | undefined;
}

/** A map of featureMap, behind a learned projection where one is given (T2R: relu; Hedgehog), or FAVOR+. */
export type LayerFeatureMap = (FeatureMapOptions & { readonly projection?: HeadProjection | undefined }) | FavorMap;

/** ERR_ARGUMENT unless it is a map by its name, and one of FAVOR+ has its projection. */
export function checkMap(layer: string, name: string, map: LayerFeatureMap): void {
  const known = map?.name;
  if (known === 'favor' ? map.projection instanceof FavorProjection : featureMaps.includes(known)) return;
  const wanted = `one of ${featureMaps.join(', ')}, or favor with a FavorProjection`;
  throw linattnError('ERR_ARGUMENT', `${layer}: ${name}.name must be ${wanted}, got ${shown(known)}`);
}

function projectHeads(x: Hidden, { weights, biases }: HeadProjection): Hidden {
  const [T, H, D] = x.shape as [number, number, number];
  if (weights.length !== 1 && weights.length !== H) {
    throw linattnError(
      'ERR_ARGUMENT',
      `LinearAttention: a projection must have 1 weight or one for each of ${H} heads, got ${weights.length}`,
    );
  }
  if (biases !== undefined && biases.length !== weights.length) {
    throw linattnError(
      'ERR_ARGUMENT',
      `LinearAttention: a projection must have as many biases as weights, ${weights.length}, got ${biases.length}`,
    );
  }
  const packed = convert({ x, dtype: x.dtype });
  const F = weights[0]!.shape[0];
  if (weights.length === 1) {
    const flat = matmul({ x: packed.view([T * H, D], 0, D), weight: weights[0]!, bias: biases?.[0] });
    return flat.view([T, H, F], 0, H * F);
  }
  const out = Tensor.zeros({ dtype: x.dtype, shape: [T, H, F], device: x.device });
  weights.forEach((weight, h) => {
    const one = matmul({ x: packed.view([T, D], h * D, H * D), weight, bias: biases?.[h] });
    convertInto({ x: one, into: out.view([T, F], h * F, H * F) });
  });
  return out;
}

/** The features of queries. */
export function queryFeatures(x: Hidden, map: LayerFeatureMap, sequences: Sequences, eps = 0): Hidden {
  if (map.name !== 'favor') return mapped(x, map);
  const relu = map.projection.kind === 'relu';
  const maximum = relu ? 'none' : 'token';
  return favorFeatures({ x, projection: map.projection, maximum, sequences, eps: relu ? map.eps : eps }).features;
}

/** The features of keys, and what they do to the decay per token. */
export function keyFeatures(
  x: Hidden,
  map: LayerFeatureMap,
  rest: {
    sequences: Sequences;
    maximum: FavorMaximum;
    keyMax: Tensor<'float32'> | undefined;
    decay: Tensor<'float32'> | undefined;
  },
): { features: Hidden; logDecay?: Tensor<'float32'> } {
  if (map.name !== 'favor') return { features: mapped(x, map) };
  const { projection, eps } = map;
  if (projection.kind === 'relu') {
    return favorFeatures({ x, projection, maximum: 'none', sequences: rest.sequences, eps });
  }
  return favorFeatures({ x, projection, eps: rest.maximum === 'sequence' ? eps : 0, ...rest });
}

function mapped(x: Hidden, map: Exclude<LayerFeatureMap, FavorMap>): Hidden {
  const { projection, ...options } = map;
  return featureMap({ x: projection ? projectHeads(x, projection) : x, ...options });
}
