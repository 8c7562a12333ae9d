// Whole models against logits of outside implementations (test/golden/README.md): prefill, sliced in any way, decode, and
// what neither company in a batch nor a saved state may change.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import type { NdArray } from '../../lib/ops/reference';
import { setThreads } from '../../lib/tensor/device';
import { relativeError } from '../support/arrays';
import { expectSameLogits, onCuda } from '../support/device';
import { type Golden, readGolden } from '../support/golden';
import { allLogits, slicesOf } from '../support/network';

const ndOf = (array: { shape: readonly number[]; data: Float32Array }): NdArray => ({
  shape: array.shape,
  data: Float64Array.from(array.data),
});

const rowsOf = (array: NdArray): Float64Array[] => {
  const width = array.shape[1]!;
  return Array.from({ length: array.shape[0]! }, (_, i) => array.data.subarray(i * width, (i + 1) * width));
};
const argmax = (row: Float64Array): number => row.reduce((best, value, i) => (value > row[best]! ? i : best), 0);

/** Where the golden's two greatest logits are far enough apart, ours has the same greatest. */
function expectSameArgmax(ours: NdArray, theirs: NdArray, gaps: Float32Array, meta: Golden['meta']): void {
  const { relative_l2: tolerance, argmax_gap_factor: factor, qualifying_share: share } = meta.tolerance;
  const theirRows = rowsOf(theirs);
  const clear = theirRows.map(
    (row, i) => gaps[i]! > factor * tolerance * row.reduce((m, x) => Math.max(m, Math.abs(x)), 0),
  );
  expect(clear.filter(Boolean).length / clear.length).toBeGreaterThanOrEqual(share);
  const wrong = rowsOf(ours).flatMap((row, i) => (clear[i] && argmax(row) !== argmax(theirRows[i]!) ? [i] : []));
  expect(wrong).toEqual([]);
}

/** max |a - b| / max |b| of the worst row. */
function worstRow(ours: NdArray, theirs: NdArray): number {
  const theirRows = rowsOf(theirs);
  return rowsOf(ours).reduce((worst, row, i) => {
    const top = theirRows[i]!.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const off = row.reduce((m, x, j) => Math.max(m, Math.abs(x - theirRows[i]![j]!)), 0);
    return Math.max(worst, off / top);
  }, 0);
}

describe.each([
  'qwen3_5/tied',
  'qwen3_5/grouped',
  'qwen3_5/multimodal',
  'qwen3_5/multimodal-untied',
  'gated_deltanet/linear',
  'gated_deltanet/hybrid',
  'gated_deltanet/grouped',
  'gated_deltanet/ungated',
  'mamba2/tied',
  'mamba2/grouped',
  'retnet/gated',
  'retnet/ungated',
  'gla/plain',
  'gla/grouped',
  'delta_net/plain',
  'delta_net/gated',
  'kda/plain',
  'kda/bounded',
  'gsa/plain',
  'gsa/grouped',
  'hgrn2/bounded',
  'hgrn2/free',
  'minimax/plain',
  'minimax/scaled',
  'rwkv7/author',
  'rwkv7/prefixed',
  'rwkv7/fla',
  'xlstm/single',
  'xlstm/fused',
  'qwen3_next/experts',
  'qwen3_next/unnormalised',
  'qwen3_5_moe/experts',
  'granitemoehybrid/dense',
  'granitemoehybrid/experts',
])('%s', (name) => {
  const golden = readGolden(name);
  const prompt = golden.int32('tokens').data;
  const theirs = ndOf(golden.float32('logits'));
  const { relative_l2: tolerance } = golden.meta.tolerance;
  let model: Model;
  let whole: NdArray;

  beforeAll(async () => {
    model = await load({ model: golden.folder, maxSequences: 3 });
    whole = await allLogits(model, prompt, [prompt.length]);
  });
  afterAll(() => model.dispose());

  test('has the parameters that its maker counted', () => {
    expect(model.info.parameters).toBe(golden.meta.parameters);
    expect(model.info.dtype).toBe('float32');
  });

  test('prefill', () => {
    expect(relativeError(whole, theirs)).toBeLessThanOrEqual(tolerance);
    expect(worstRow(whole, theirs)).toBeLessThanOrEqual(10 * tolerance);
    expectSameArgmax(whole, theirs, golden.float32('top2_gap').data, golden.meta);
  });

  test.each([64, 37, 5, 1])('prefill in slices of %i has the same bits', async (size) => {
    const sliced = await allLogits(model, prompt, slicesOf(prompt.length, size));
    expect(relativeError(sliced, whole)).toBeLessThanOrEqual(onCuda ? 1e-5 : 0); // see expectSameLogits
  });

  test('one thread has the same bits as three', async () => {
    for (const threads of [1, 3]) {
      setThreads(threads);
      expect(relativeError(await allLogits(model, prompt, [prompt.length]), whole)).toBe(0);
    }
    setThreads(2);
  });

  test('decode, fed with the golden continuation', async () => {
    const forced = golden.int32('greedy_tokens').data;
    const logits = ndOf(golden.float32('greedy_logits'));
    const text = Int32Array.from([...prompt, ...forced]);
    const ours = await allLogits(
      model,
      text,
      [prompt.length, ...forced].map((_, i) => (i === 0 ? prompt.length : 1)),
    );
    const tail = { shape: logits.shape, data: ours.data.subarray(prompt.length * logits.shape[1]!) };
    expect(relativeError(tail, logits)).toBeLessThanOrEqual(tolerance);
    expectSameArgmax(tail, logits, golden.float32('greedy_top2_gap').data, golden.meta);
  });

  test('company in a batch changes no token', async () => {
    const inputs = [0, 1, 2].map((i) => ({
      tokens: prompt.subarray(11 * i, 60 + 23 * i),
      maxTokens: 8 + i,
      temperature: 0.9,
      seed: i,
      ignoreEos: true,
    }));
    const alone = [];
    for (const input of inputs) alone.push((await model.generate(input).result).tokens);
    const together = await Promise.all(inputs.map((input) => model.generate(input).result));
    expect(together.map(({ tokens }) => tokens)).toEqual(alone);
  });

  test('a saved state goes on as if nobody had stopped', async () => {
    const [start, rest] = [prompt.subarray(0, 70), prompt.subarray(70)];
    const session = model.createSession();
    await session.prefill({ tokens: start });
    const snapshot = await session.snapshot();
    const bytes = await snapshot.serialize();
    snapshot.dispose();
    await session.prefill({ append: rest });
    const loaded = await model.loadSnapshot(bytes);
    const resumed = model.createSession({ from: loaded });
    await resumed.prefill({ append: rest });
    expectSameLogits(await resumed.logits(), await session.logits());
    await Promise.all([session.dispose(), resumed.dispose()]);
    loaded.dispose();
  });

  test('generates the tokens of the golden while its choices are clear', async () => {
    const forced = golden.int32('greedy_tokens').data;
    const run = model.generate({ tokens: prompt, maxTokens: forced.length, temperature: 0, ignoreEos: true });
    const { tokens, usage } = await run.result;
    const logits = rowsOf(ndOf(golden.float32('greedy_logits')));
    const gaps = golden.float32('greedy_top2_gap').data;
    const unclear = logits.findIndex(
      (row, i) => gaps[i]! <= 10 * tolerance * row.reduce((m, x) => Math.max(m, Math.abs(x)), 0),
    );
    const same = unclear < 0 ? forced.length : unclear + 1;
    expect(same).toBeGreaterThan(3);
    expect(tokens.slice(0, same)).toEqual(forced.slice(0, same));
    expect(usage).toMatchObject({ promptTokens: prompt.length, cachedTokens: 0, completionTokens: forced.length });
  });
});

test('bfloat16: at most twice the error of transformers in bfloat16', async () => {
  const golden = readGolden('qwen3_5/grouped-bfloat16');
  const model = await load({ model: golden.folder, maxSequences: 1 });
  try {
    expect(model.info.dtype).toBe('bfloat16');
    const prompt = golden.int32('tokens').data;
    const exact = ndOf(golden.float32('logits'));
    const theirs = relativeError(ndOf(golden.float32('logits_bfloat16')), exact);
    const ours = relativeError(await allLogits(model, prompt, [prompt.length]), exact);
    expect(theirs).toBeCloseTo(golden.meta.measured.bfloat16_error!, 3);
    expect(ours).toBeLessThanOrEqual(2 * theirs);
  } finally {
    await model.dispose();
  }
});

test.each(['qwen3_5/tied', 'mamba2/tied', 'rwkv7/author'])(
  '%s: int8 and float16 weights stay near float32',
  async (name) => {
    const golden = readGolden(name);
    const prompt = golden.int32('tokens').data;
    const exact = ndOf(golden.float32('logits'));
    // Rounding of weights: 2^-11 relative for float16, about 2^-8 of a row's largest weight for int8; on a GPU the activations
    // are rounded like them, which adds as much again.
    for (const [dtype, bar] of [
      ['float16', 0.005],
      ['int8', 0.1],
    ] as const) {
      const model = await load({ model: golden.folder, dtype, maxSequences: 1 });
      expect(relativeError(await allLogits(model, prompt, [prompt.length]), exact)).toBeLessThanOrEqual(
        onCuda ? 2 * bar : bar,
      );
      await model.dispose();
    }
  },
);
