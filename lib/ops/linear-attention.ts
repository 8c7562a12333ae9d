// linearAttention: every recurrence of the form S = decay S + rank-one updates, out = S'q, with its states in slots.
import { shown } from '../errors';
import type { DType } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';
import { defineOp } from './op';
import { Sequences, sequenceFields } from './sequences';

export * from './linear-attention-reference';

const op = defineOp('linearAttention', {
  q: 'optional',
  k: 'optional',
  v: 'optional',
  logDecay: 'optional',
  beta: 'optional',
  a: 'optional',
  b: 'optional',
  state: 'inout',
  keySum: 'inout',
  checkpointSlots: 'optional',
  out: 'out',
  denominator: 'out',
  ...sequenceFields,
  checkpointEvery: 'number',
  scale: 'number',
  eps: 'number',
  normalize: 'number',
  rule: 'number',
  decay: 'number',
});

/** Natural logarithm of the decay, <= 0; -Infinity is allowed. Clamped to [-30, 0]: e^-30 is under float32's epsilon. */
export type LogDecay =
  /** float32 [H] */
  | { per: 'head'; g: Tensor }
  /** float32 [T, H] */
  | { per: 'token'; g: Tensor }
  /** [T, H, K], float32 or the dtype of q */
  | { per: 'channel'; g: Tensor }
  /** [T, H, V], float32 or the dtype of q; additive only, no normalizer (the first pass of GSA) */
  | { per: 'value'; g: Tensor };

export type Rule =
  | { name: 'additive' }
  /** beta: float32 [T, H], any real number; the rule reads the decayed state. */
  | { name: 'delta'; beta: Tensor }
  /** a, b: [T, H, K] of q's dtype; a reads the state before its decay. */
  | { name: 'lowRank'; a: Tensor; b: Tensor };

export interface LinearAttention {
  /** [T, Hk, K] and [T, Hv, V], both float32, bfloat16 or float16. Absent together: the state is only read. */
  k?: Tensor | undefined;
  v?: Tensor | undefined;
  rule: Rule;
  decay?: LogDecay | undefined;
  /** Of the output, 1 by default (most callers want K ** -0.5); must be 1 with normalize. */
  scale?: number | undefined;
  /** Additive only: out = S'q / (z'q + eps), z the decayed sum of keys. */
  normalize?: { eps: number } | undefined;
  /** Additive only: z'q is returned too, and out is not divided by it. */
  denominator?: boolean | undefined;
  /** float32 [slots, H, V, K], updated in place; the slot stride is free. Absent: from zero, the end is dropped. */
  state?: Tensor<'float32'> | undefined;
  /** float32 [slots, H, K], z; required beside state with normalize or denominator, and updated wherever it is given. */
  keySum?: Tensor<'float32'> | undefined;
  sequences: Sequences;
  /**
   * Copies of the state (and keySum) at every absolute position that is a multiple of `every`: slots, int32 [count], has
   * one entry for each such position p, positions[n] < p <= positions[n] + length, of the rows in order; -1 = skip.
   * `every` is a multiple of 64, or 1 when no row is longer than 8 tokens (to verify speculated tokens).
   */
  checkpoints?: { every: number; slots: Tensor<'int32'> } | undefined;
}

const ruleNumber = { additive: 0, delta: 1, lowRank: 2 };
const decayNumber = { head: 1, token: 2, channel: 3, value: 4 };
const widest = 512;

/**
 * T packed tokens of N sequences, H = max(Hk, Hv) state heads, Ho = max(Hq, H) output heads. Of two head counts one
 * divides the other; head j of the larger reads head floor(j small / large) of the smaller. Sequence n starts from
 * S = state[readSlots[n]] (zero for -1; then its first token's decay is 0 whatever g says), and for each token, with
 * D = e^g o S,
 *
 *     additive  S = D + k v'
 *     delta     S = D + k (beta (v - D'k))'
 *     lowRank   S = D + b (S_before'a)' + k v'
 *     z = e^g o z + k,   out = scale S'q
 *
 * and the end state goes to state[writeSlots[n]] (dropped for -1). Slots >= 0 that are written are distinct, and none is
 * read by another row; readSlots may repeat, which forks a state without a copy. The formulas are those of linear
 * attention (arXiv 2006.16236), gated linear attention (2312.06635), Mamba-2 (2405.21060), gated DeltaNet (2412.06464)
 * and RWKV-7 (2503.14456).
 *
 * On the CPU each state row goes through the tokens one by one: any split of a prompt (also token by token), any company
 * in the batch and any number of threads give the same bits, and correlated keys cost no accuracy.
 *
 * @returns out [T, Ho, V] of q's dtype; denominator float32 [T, Ho] where asked for. Without q nothing: only an update.
 * @throws LinattnError ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT; ERR_UNSUPPORTED unless K and V are multiples of 8 up to 512;
 *   at execution ERR_ARGUMENT for offsets or slots that are out of range or clash
 */
export function linearAttention<D extends DType>(
  input: LinearAttention & { q: Tensor<D> },
): {
  out: Tensor<D>;
  denominator?: Tensor<'float32'>;
};
export function linearAttention(input: LinearAttention & { q?: undefined }): void;
export function linearAttention(
  input: LinearAttention & { q?: Tensor | undefined },
): { out: Tensor; denominator?: Tensor<'float32'> } | undefined {
  const { q, k, v, rule, decay, scale = 1, normalize, state, keySum, sequences, checkpoints } = op.input(input);
  const { T, H, K, V, Ho, dtype, like } = sizesOf(input);
  checkRule(rule, dtype, T, H, K);
  if (decay !== undefined) checkDecay(op.input(decay, 'decay'), dtype, T, H, K, V);

  const additive = rule.name === 'additive';
  const denominator = op.flag('denominator', input.denominator === undefined ? false : input.denominator);
  const sums = normalize !== undefined || denominator || keySum !== undefined;
  op.check(Number.isFinite(scale), `scale must be a number, got ${shown(scale)}`);
  op.check(additive || !sums, `normalize, denominator and keySum need the rule 'additive', got '${rule.name}'`);
  op.check(!sums || decay?.per !== 'value', "normalize, denominator and keySum have no decay per 'value'");
  op.check(additive || decay?.per !== 'value', `decay per 'value' needs the rule 'additive', got '${rule.name}'`);
  if (normalize !== undefined) {
    op.input(normalize, 'normalize');
    op.check(scale === 1, `scale must be 1 with normalize, got ${shown(scale)}`);
    op.check(
      Number.isFinite(normalize.eps) && normalize.eps >= 0,
      `normalize.eps must be 0 or more, got ${shown(normalize.eps)}`,
    );
    op.check(!denominator, 'normalize and denominator exclude each other');
  }
  op.check(!denominator || q !== undefined, 'denominator needs q');
  op.check(k !== undefined || (additive && !decay), "without k and v the rule must be 'additive', without decay");
  checkState(input, H, V, K, sums);
  if (checkpoints !== undefined) {
    checkCheckpoints(op.input(checkpoints, 'checkpoints'), sequences, state !== undefined);
  }

  const out = q && op.output(like, q.dtype, [T, Ho, V]);
  const below = denominator ? op.output(like, 'float32', [T, Ho]) : undefined;
  op.run({
    q,
    k,
    v,
    logDecay: decay?.g,
    beta: rule.name === 'delta' ? rule.beta : undefined,
    a: rule.name === 'lowRank' ? rule.a : undefined,
    b: rule.name === 'lowRank' ? rule.b : undefined,
    state,
    keySum,
    checkpointSlots: checkpoints?.slots,
    out,
    denominator: below,
    ...sequences.record,
    checkpointEvery: checkpoints?.every ?? 0,
    scale,
    eps: normalize?.eps ?? 0,
    normalize: normalize !== undefined,
    rule: ruleNumber[rule.name],
    decay: decay ? decayNumber[decay.per] : 0,
  });
  return out && (below ? { out, denominator: below } : { out });
}

function sizesOf(input: LinearAttention & { q?: Tensor | undefined }) {
  const { q, k, v, state, sequences } = input;
  op.instance('sequences', sequences, Sequences);
  op.check((k === undefined) === (v === undefined), 'k and v go together: one of them is absent');
  if (q !== undefined) op.tensor('q', q);
  if (k !== undefined) op.tensor('k', k);
  if (v !== undefined) op.tensor('v', v);
  if (state !== undefined) op.tensor('state', state);
  const like = q ?? k;
  if (like === undefined) throw op.error('ERR_ARGUMENT', 'q, or k and v, must be given');
  op.check(q !== undefined || state !== undefined, 'without q and state there is nothing to compute');
  op.check(k !== undefined || state !== undefined, 'without k and v there must be a state to read');
  const dtype = like.dtype;
  op.dtype(q ? 'q' : 'k', like, ['float32', 'bfloat16', 'float16']);
  let H: number;
  let K: number;
  let V: number;
  if (k && v) {
    const [, Hk] = op.shape('k', k, ['T', 'Hk', 'K']) as [number, number];
    const [, Hv] = op.shape('v', v, ['T', 'Hv', 'V']) as [number, number];
    K = k.shape[2]!;
    V = v.shape[2]!;
    H = Math.max(Hk, Hv);
    checkHeads('Hk', Hk, 'Hv', Hv);
    op.expect('k', k, dtype, { T: sequences.tokens, Hk, K });
    op.expect('v', v, dtype, { T: sequences.tokens, Hv, V });
  } else {
    const shape = op.shape('state', state!, ['slots', 'H', 'V', 'K']);
    [, H, V, K] = shape as [number, number, number, number];
  }
  for (const [name, width] of [
    ['K', K],
    ['V', V],
  ] as const) {
    if (width % 8 === 0 && width >= 8 && width <= widest) continue;
    throw op.error(
      'ERR_UNSUPPORTED',
      `${name} must be a multiple of 8 from 8 to ${widest} (pad with zeros), got ${width}`,
    );
  }
  const Hq = q ? op.shape('q', q, ['T', 'Hq', 'K'])[1]! : H;
  if (q) {
    op.expect('q', q, dtype, { T: sequences.tokens, Hq, K });
    checkHeads('Hq', Hq, 'H', H);
  }
  return { T: sequences.tokens, H, K, V, Ho: Math.max(Hq, H), dtype, like };
}

function checkHeads(name: string, heads: number, otherName: string, other: number): void {
  const [small, large] = [Math.min(heads, other), Math.max(heads, other)];
  if (small >= 1 && large % small === 0) return;
  throw op.error(
    'ERR_SHAPE',
    `of ${name} and ${otherName} one must divide the other, got ${shown(heads)} and ${other}`,
  );
}

function checkRule(rule: Rule, dtype: Tensor['dtype'], T: number, H: number, K: number): void {
  op.input(rule, 'rule');
  if (rule.name === 'delta') {
    op.expect('rule.beta', rule.beta, 'float32', { T, H });
  } else if (rule.name === 'lowRank') {
    op.expect('rule.a', rule.a, dtype, { T, H, K });
    op.expect('rule.b', rule.b, dtype, { T, H, K });
  } else if (rule.name !== 'additive') {
    const { name } = rule as { name: string };
    throw op.error('ERR_ARGUMENT', `rule.name must be 'additive', 'delta' or 'lowRank', got '${shown(name)}'`);
  }
}

function checkDecay(decay: LogDecay, dtype: Tensor['dtype'], T: number, H: number, K: number, V: number): void {
  const shapes = { head: { H }, token: { T, H }, channel: { T, H, K }, value: { T, H, V } };
  const sizes = shapes[decay.per];
  if (sizes === undefined) {
    const per = decay.per as string;
    throw op.error('ERR_ARGUMENT', `decay.per must be 'head', 'token', 'channel' or 'value', got '${per}'`);
  }
  const wide = decay.per === 'channel' || decay.per === 'value';
  op.expect('decay.g', decay.g, wide && op.tensor('decay.g', decay.g).dtype === dtype ? dtype : 'float32', sizes);
}

function checkState(input: LinearAttention, H: number, V: number, K: number, sums: boolean): void {
  const { state, keySum, normalize } = input;
  if (state) {
    const slots = op.shape('state', state, ['slots', 'H', 'V', 'K'])[0]!;
    if ((state.dtype as string) !== 'float32') {
      throw op.error('ERR_UNSUPPORTED', `state must be float32, got ${state.dtype}`);
    }
    op.expect('state', state, 'float32', { slots, H, V, K });
    const name = normalize ? 'normalize' : 'denominator';
    op.check(!sums || keySum !== undefined, `${name} with a state needs its keySum`);
    if (keySum) op.expect('keySum', keySum, 'float32', { slots, H, K });
  }
  op.check(state !== undefined || keySum === undefined, 'keySum goes with a state, which is absent');
}

function checkCheckpoints(
  checkpoints: { every: number; slots: Tensor },
  sequences: Sequences,
  hasState: boolean,
): void {
  const { every, slots } = checkpoints;
  op.check(hasState, 'checkpoints need a state');
  op.check(
    (Number.isSafeInteger(every) && every > 0 && every < 2 ** 31 && every % 64 === 0) ||
      (every === 1 && sequences.maxTokens <= 8),
    `checkpoints.every must be a multiple of 64, or 1 for at most 8 tokens, got ${shown(every)} for ${sequences.maxTokens}`,
  );
  op.expect('checkpoints.slots', slots, 'int32', { count: op.shape('checkpoints.slots', slots, ['count'])[0]! });
}

/** Of N sequences with T tokens in all; `width` bytes an element of q, k, v and out. Head counts as in the call. */
export function linearAttentionCost(x: {
  N: number;
  T: number;
  Hq: number;
  Hk: number;
  Hv: number;
  K: number;
  V: number;
  rule: Rule['name'];
  decay?: LogDecay['per'] | undefined;
  width: number;
}): { bytes: number; flops: number } {
  const { N, T, Hq, Hk, Hv, K, V, rule, decay, width } = x;
  const H = Math.max(Hk, Hv);
  const Ho = Math.max(Hq, H);
  const gates = { head: 0, token: H * 4, channel: H * K * width, value: H * V * width }[decay ?? 'head'];
  const extra = { additive: 0, delta: H * 4, lowRank: 2 * H * K * width }[rule];
  const perToken = (Hq * K + Hk * K + Hv * V + Ho * V) * width + gates + extra;
  const state = H * V * K;
  const update = { additive: 2, delta: 4, lowRank: 6 }[rule] + (decay ? 1 : 0);
  return { bytes: T * perToken + 8 * N * state, flops: T * (state * update + 2 * Ho * V * K) };
}
