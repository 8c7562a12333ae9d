// What linearAttention computes, as plain loops in float64. Never used to run a model.
import { type NdArray, nd } from './reference';

export type ReferenceRule =
  | { name: 'additive' }
  | { name: 'delta'; beta: NdArray }
  | { name: 'lowRank'; a: NdArray; b: NdArray };

/** As LinearAttention, on plain arrays. */
export interface LinearAttentionReference {
  q?: NdArray | undefined;
  k?: NdArray | undefined;
  v?: NdArray | undefined;
  rule: ReferenceRule;
  decay?: { per: 'head' | 'token' | 'channel' | 'value'; g: NdArray } | undefined;
  scale?: number | undefined;
  normalize?: { eps: number } | undefined;
  state?: NdArray | undefined;
  keySum?: NdArray | undefined;
  lengths: readonly number[];
  readSlots: readonly number[];
  writeSlots: readonly number[];
  positions?: readonly number[] | undefined;
  checkpoints?: { every: number; slots: readonly number[] } | undefined;
}

export interface LinearAttentionReferenceResult {
  out: NdArray;
  denominator: NdArray;
  state: NdArray;
  keySum: NdArray;
}

/**
 * The outputs and copies of the states after the call; without q the outputs are empty, without state it has 0 slots.
 * @param stored rounds what a state holds after each token: Math.fround gives the error of the recurrence itself
 */
export function linearAttentionReference(
  x: LinearAttentionReference,
  stored: (value: number) => number = (value) => value,
): LinearAttentionReferenceResult {
  const { q, k, v, rule, decay, normalize, scale = 1 } = x;
  const H = k && v ? Math.max(k.shape[1]!, v.shape[1]!) : x.state!.shape[1]!;
  const K = k ? k.shape[2]! : x.state!.shape[3]!;
  const V = v ? v.shape[2]! : x.state!.shape[2]!;
  const T = x.lengths.reduce((total, length) => total + length, 0);
  const Hq = q?.shape[1] ?? 0;
  const Ho = q ? Math.max(Hq, H) : 0;
  const out = nd([T, Ho, V]);
  const denominator = nd([T, Ho]);
  const state = nd(x.state?.shape ?? [0, H, V, K], x.state?.data);
  const keySum = nd(x.keySum?.shape ?? [0, H, K], x.keySum?.data);
  const before = { state: state.data.slice(), keySum: keySum.data.slice() };

  const gate = (i: number): number => Math.exp(Math.min(0, Math.max(-30, decay!.g.data[i]!)));
  // e^g by channel, and by state row.
  const decaysOf = (t: number, h: number): { channels: Float64Array; rows: Float64Array } => {
    const channels = new Float64Array(K).fill(1);
    const rows = new Float64Array(V).fill(1);
    if (decay?.per === 'head') channels.fill(gate(h));
    if (decay?.per === 'token') channels.fill(gate(t * H + h));
    if (decay?.per === 'channel') channels.set(channels.map((_, c) => gate((t * H + h) * K + c)));
    if (decay?.per === 'value') rows.set(rows.map((_, r) => gate((t * H + h) * V + r)));
    return { channels, rows };
  };

  let t0 = 0;
  let checkpoint = 0;
  x.lengths.forEach((length, n) => {
    const read = x.state ? x.readSlots[n]! : -1;
    for (let h = 0; h < H; h++) {
      const S = new Float64Array(V * K);
      const z = new Float64Array(K);
      if (read >= 0) {
        S.set(before.state.subarray((read * H + h) * V * K, (read * H + h + 1) * V * K));
        if (x.keySum) z.set(before.keySum.subarray((read * H + h) * K, (read * H + h + 1) * K));
      }
      const save = (slot: number): void => {
        if (slot < 0 || !x.state) return;
        state.data.set(S, (slot * H + h) * V * K);
        if (x.keySum) keySum.data.set(z, (slot * H + h) * K);
      };
      let saved = checkpoint;
      for (let i = 0; i < length; i++) {
        const t = t0 + i;
        if (k && v) update(S, z, t, h, i === 0 && read < 0);
        for (let j = 0; j < Ho; j++) if (Math.floor((j * H) / Ho) === h) output(S, z, t, j);
        const position = (x.positions?.[n] ?? 0) + i + 1;
        if (x.checkpoints && position % x.checkpoints.every === 0) save(x.checkpoints.slots[saved++]!);
      }
      save(x.writeSlots[n]!);
      if (h === H - 1) checkpoint = saved;
    }
    t0 += length;
  });
  return { out, denominator, state, keySum };

  function update(S: Float64Array, z: Float64Array, t: number, h: number, fresh: boolean): void {
    const Hk = k!.shape[1]!;
    const Hv = v!.shape[1]!;
    const key = k!.data.subarray((t * Hk + Math.floor((h * Hk) / H)) * K);
    const value = v!.data.subarray((t * Hv + Math.floor((h * Hv) / H)) * V);
    const of = (array: NdArray, c: number): number => array.data[(t * H + h) * K + c]!;
    const { channels, rows } = decaysOf(t, h);
    if (fresh) channels.fill(0);
    for (let r = 0; r < V; r++) {
      const s = S.subarray(r * K, (r + 1) * K);
      let low = 0;
      if (rule.name === 'lowRank') for (let c = 0; c < K; c++) low += s[c]! * of(rule.a, c);
      for (let c = 0; c < K; c++) s[c]! *= channels[c]! * (fresh ? 1 : rows[r]!);
      let u = value[r]!;
      if (rule.name === 'delta') {
        for (let c = 0; c < K; c++) u -= s[c]! * key[c]!;
        u *= rule.beta.data[t * H + h]!;
      }
      for (let c = 0; c < K; c++) {
        s[c] = stored(s[c]! + u * key[c]! + (rule.name === 'lowRank' ? low * of(rule.b, c) : 0));
      }
    }
    for (let c = 0; c < K; c++) z[c] = stored(z[c]! * channels[c]! + key[c]!);
  }

  function output(S: Float64Array, z: Float64Array, t: number, j: number): void {
    const query = q!.data.subarray((t * Hq + Math.floor((j * Hq) / Ho)) * K);
    let total = 0;
    for (let c = 0; c < K; c++) total += z[c]! * query[c]!;
    denominator.data[t * Ho + j] = total;
    for (let r = 0; r < V; r++) {
      let sum = 0;
      for (let c = 0; c < K; c++) sum += S[r * K + c]! * query[c]!;
      out.data[(t * Ho + j) * V + r] = normalize ? sum / (total + normalize.eps) : scale * sum;
    }
  }
}
