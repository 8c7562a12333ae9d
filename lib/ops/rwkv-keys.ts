// rwkvKeys: what RWKV-7 makes of its keys: the vectors that its low-rank update reads and writes, and the bonus.
import type { Tensor } from '../tensor/tensor';
import { activationFunctions } from './activation';
import { type Float, floats } from './float';
import { defineOp } from './op';
import { type NdArray, nd } from './reference';

const op = defineOp('rwkvKeys', {
  r: 'in',
  k: 'in',
  a: 'in',
  keyScale: 'in',
  keyMix: 'in',
  bonusWeight: 'in',
  read: 'out',
  write: 'out',
  key: 'out',
  bonus: 'out',
});

export interface RwkvKeysInput<D extends Float> {
  /** float32, bfloat16 or float16 [T, H, K] each (row strides of their own); a before its sigmoid. */
  r: Tensor<D>;
  k: Tensor<D>;
  a: Tensor<D>;
  /** float32 [H, K]: k_k, k_a and r_k of the checkpoints. */
  keyScale: Tensor<'float32'>;
  keyMix: Tensor<'float32'>;
  bonusWeight: Tensor<'float32'>;
}

/**
 * With s = k keyScale and rate = sigmoid(a), head by head:
 *
 *     read = s / max(|s|, 1e-12),  write = -read rate,  key = k (1 + (rate - 1) keyMix),
 *     bonus = sum over K of r key bonusWeight
 *
 * so that S = S diag(w) + (S read) write' + v key' is RWKV-7's recurrence (arXiv 2503.14456; RWKV-LM
 * RWKV-v7/rwkv_v7_numpy.py).
 * @returns read, write and key [T, H, K] of k's dtype; bonus float32 [T, H]
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE
 */
export function rwkvKeys<D extends Float>(
  input: RwkvKeysInput<D>,
): {
  read: Tensor<D>;
  write: Tensor<D>;
  key: Tensor<D>;
  bonus: Tensor<'float32'>;
} {
  const { r, k, a, keyScale, keyMix, bonusWeight } = op.input(input);
  op.dtype('k', k, floats);
  const [T, H, K] = op.shape('k', k, ['T', 'H', 'K']) as [number, number, number];
  op.expect('r', r, k.dtype, { T, H, K });
  op.expect('a', a, k.dtype, { T, H, K });
  op.expect('keyScale', keyScale, 'float32', { H, K });
  op.expect('keyMix', keyMix, 'float32', { H, K });
  op.expect('bonusWeight', bonusWeight, 'float32', { H, K });
  const like = () => op.output(k, k.dtype, [T, H, K]);
  const [read, write, key] = [like(), like(), like()];
  const bonus = op.output(k, 'float32', [T, H]);
  op.run({ r, k, a, keyScale, keyMix, bonusWeight, read, write, key, bonus });
  return { read, write, key, bonus };
}

/** float64 oracle. */
export function rwkvKeysReference(x: Record<'r' | 'k' | 'a' | 'keyScale' | 'keyMix' | 'bonusWeight', NdArray>): {
  read: NdArray;
  write: NdArray;
  key: NdArray;
  bonus: NdArray;
} {
  const { r, k, a, keyScale, keyMix, bonusWeight } = x;
  const [T, H, K] = k.shape as [number, number, number];
  const [read, write, key, bonus] = [nd(k.shape), nd(k.shape), nd(k.shape), nd([T, H])];
  for (let head = 0; head < T * H; head++) {
    const at = head * K;
    const weights = (head % H) * K;
    let squares = 0;
    for (let c = 0; c < K; c++) squares += (k.data[at + c]! * keyScale.data[weights + c]!) ** 2;
    const norm = Math.max(Math.sqrt(squares), 1e-12);
    for (let c = 0; c < K; c++) {
      const rate = activationFunctions.sigmoid(a.data[at + c]!);
      read.data[at + c] = (k.data[at + c]! * keyScale.data[weights + c]!) / norm;
      write.data[at + c] = -read.data[at + c]! * rate;
      key.data[at + c] = k.data[at + c]! * (1 + (rate - 1) * keyMix.data[weights + c]!);
      bonus.data[head]! += r.data[at + c]! * key.data[at + c]! * bonusWeight.data[weights + c]!;
    }
  }
  return { read, write, key, bonus };
}

/** Reads r, k and a, writes read, write and key; about 30 operations a value. */
export const rwkvKeysCost = (values: number, bytesPerValue: number) => ({
  bytes: 6 * values * bytesPerValue,
  flops: 30 * values,
});
