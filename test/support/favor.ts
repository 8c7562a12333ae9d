// Projections for the tests of FAVOR+.
import { FavorProjection, type favorKinds } from '../../lib/ops/favor-projection';
import type { NdArray } from '../../lib/ops/reference';
import { rounded, seeded, tensorOf } from './arrays';

export const float32 = (array: NdArray) => tensorOf(array, 'float32');
export const directionsOf = (m: number, D: number) => rounded(seeded(m).normal([m, D]), 'float32');
export const projectionOf = (W: NdArray, kind: (typeof favorKinds)[number], scale?: number) =>
  FavorProjection.from(W.data, { directions: W.shape[0]!, width: W.shape[1]!, kind, scale });
