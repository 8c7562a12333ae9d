// Random calls of linearAttention: the arrays, the call on a device, and its float64 reference.
import {
  type LinearAttention,
  linearAttention,
  linearAttentionReference,
  type ReferenceRule,
} from '../../lib/ops/linear-attention';
import { type NdArray, nd } from '../../lib/ops/reference';
import { sequences } from '../../lib/ops/sequences';
import type { DType } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';
import { readNd, rounded, seeded, tensorOf } from './arrays';

export type FloatType = 'float32' | 'bfloat16' | 'float16';
export type DecayKind = 'none' | 'head' | 'token' | 'channel' | 'value';

export interface CaseOptions {
  rule?: 'additive' | 'delta' | 'lowRank';
  decay?: DecayKind;
  /** Hq, Hk, Hv */
  heads?: readonly [number, number, number];
  K?: number;
  V?: number;
  lengths?: readonly number[];
  slots?: number;
  dtype?: FloatType;
  seed?: number;
  /** All keys near one direction. */
  correlated?: boolean;
  beta?: number;
  normalize?: { eps: number };
}

export type Case = ReturnType<typeof makeCase>;

export function makeCase(options: CaseOptions = {}) {
  const { rule: name = 'delta', decay: per = 'token', heads = [2, 2, 2], K = 16, V = 16, lengths = [5] } = options;
  const { slots = 2 * lengths.length, dtype = 'float32', seed = 1, correlated = false, normalize } = options;
  const random = seeded(seed);
  const [Hq, Hk, Hv] = heads;
  const H = Math.max(Hk, Hv);
  const T = lengths.reduce((total, length) => total + length, 0);
  const unit = (array: NdArray): NdArray => {
    const shared = random.normal([K]);
    for (let at = 0; at < array.data.length; at += K) {
      const row = array.data.subarray(at, at + K);
      if (correlated) row.set(row.map((x, c) => 0.1 * x + shared.data[c]!));
      const size = Math.hypot(...row);
      row.set(row.map((x) => x / size));
    }
    return array;
  };
  const positive = (array: NdArray) => nd(array.shape, array.data.map(Math.abs));
  const of = (array: NdArray, kind: DType = dtype) => rounded(normalize ? positive(array) : array, kind);
  const q = of(random.normal([T, Hq, K]));
  const k = of(unit(random.normal([T, Hk, K])));
  const v = of(random.normal([T, Hv, V]));
  const state = of(random.normal([slots, H, V, K], 0.3), 'float32');
  const keySum = of(random.normal([slots, H, K], 0.3), 'float32');
  const gShape = { head: [H], token: [T, H], channel: [T, H, K], value: [T, H, V], none: [0] }[per];
  const wide = per === 'channel' || per === 'value';
  const g = rounded(random.uniform(gShape, -1, 0), wide ? dtype : 'float32');
  const a = rounded(unit(random.normal([T, H, K])), dtype);
  const rule: ReferenceRule =
    name === 'delta'
      ? {
          name,
          beta: rounded(
            nd(
              [T, H],
              random.uniform([T, H], 0, 1).data.map((x) => options.beta ?? x),
            ),
            'float32',
          ),
        }
      : name === 'lowRank'
        ? {
            name,
            a,
            b: rounded(
              nd(
                a.shape,
                a.data.map((x) => -0.6 * x),
              ),
              dtype,
            ),
          }
        : { name };
  const own = lengths.map((_, n) => n);
  const scale = normalize ? 1 : K ** -0.5;
  return {
    options: { dtype, K, V, H, Ho: Math.max(Hq, H), T, lengths },
    call: {
      q: q as NdArray | undefined,
      k: k as NdArray | undefined,
      v: v as NdArray | undefined,
      rule,
      decay: per === 'none' ? undefined : { per, g },
      scale,
      normalize,
      state: state as NdArray | undefined,
      keySum: normalize ? keySum : undefined,
      lengths,
      readSlots: own as readonly number[],
      writeSlots: own.map((n) => n + lengths.length) as readonly number[],
      positions: lengths.map(() => 0) as readonly number[],
      checkpoints: undefined as { every: number; slots: readonly number[] } | undefined,
    },
  };
}

const ints = (values: readonly number[]) => Tensor.from([...values], { dtype: 'int32', shape: [values.length] });

/** Tensors of a call's state, which later calls may go on with. */
export function pools(x: Case): { state?: Tensor<'float32'> | undefined; keySum?: Tensor<'float32'> | undefined } {
  return {
    state: x.call.state && tensorOf(x.call.state, 'float32'),
    keySum: x.call.keySum && tensorOf(x.call.keySum, 'float32'),
  };
}

// The overloads as one.
const run = linearAttention as (
  input: LinearAttention & { q?: Tensor | undefined },
) => { out: Tensor; denominator?: Tensor } | undefined;

/** Runs it on the cpu; denominator is asked for where keySum is there and normalize is not. */
export function runCase(x: Case, pool = pools(x)) {
  const { dtype } = x.options;
  const { q, k, v, rule, decay, checkpoints, ...rest } = x.call;
  const of = (array: NdArray) => tensorOf(array, dtype);
  const wide = decay && (decay.per === 'channel' || decay.per === 'value');
  const result = run({
    q: q && of(q),
    k: k && of(k),
    v: v && of(v),
    rule:
      rule.name === 'delta'
        ? { name: 'delta', beta: tensorOf(rule.beta, 'float32') }
        : rule.name === 'lowRank'
          ? { name: 'lowRank', a: of(rule.a), b: of(rule.b) }
          : rule,
    decay: decay && { per: decay.per, g: tensorOf(decay.g, wide ? dtype : 'float32') },
    scale: rest.scale,
    normalize: rest.normalize,
    denominator: q !== undefined && pool.keySum !== undefined && rest.normalize === undefined,
    ...pool,
    sequences: sequences(rest.lengths, rest),
    checkpoints: checkpoints && { every: checkpoints.every, slots: ints(checkpoints.slots) },
  });
  return { out: result?.out, denominator: result?.denominator, ...pool };
}

export const reference = (x: Case, stored?: (value: number) => number) => linearAttentionReference(x.call, stored);

/** Tokens [from, from + count) of a one-sequence call, from its read slot or, once begun, its write slot. */
export function part(x: Case, from: number, count: number): Case {
  const H = x.options.H;
  const cut = (array: NdArray | undefined) => {
    if (array === undefined) return undefined;
    const row = array.data.length / array.shape[0]!;
    return nd([count, ...array.shape.slice(1)], array.data.subarray(from * row, (from + count) * row));
  };
  const { rule, decay, readSlots, writeSlots } = x.call;
  const perToken = decay !== undefined && decay.per !== 'head';
  return {
    options: { ...x.options, T: count, lengths: [count], H },
    call: {
      ...x.call,
      q: cut(x.call.q),
      k: cut(x.call.k),
      v: cut(x.call.v),
      rule:
        rule.name === 'delta'
          ? { name: 'delta', beta: cut(rule.beta)! }
          : rule.name === 'lowRank'
            ? { name: 'lowRank', a: cut(rule.a)!, b: cut(rule.b)! }
            : rule,
      decay: perToken ? { per: decay.per, g: cut(decay.g)! } : decay,
      lengths: [count],
      readSlots: from === 0 ? readSlots : writeSlots,
      positions: [x.call.positions[0]! + from],
    },
  };
}

/** The bytes of what a call made, in one array: equal means the same bits. */
export async function bitsOf(tensors: readonly (Tensor | undefined)[]): Promise<Buffer> {
  const parts = await Promise.all(tensors.filter((tensor) => tensor !== undefined).map((tensor) => tensor.read()));
  return Buffer.concat(parts.map((data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength)));
}

export { readNd };
