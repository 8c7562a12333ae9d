import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { uniformAt } from '../../lib/ops/philox';
import { sample, sampleReference } from '../../lib/ops/sample';
import { encodeSampling, type Sampling } from '../../lib/ops/sampling-table';
import { Tensor } from '../../lib/tensor/tensor';
import { rounded, seeded } from '../support/arrays';
import { errorOf } from '../support/close';
import { onCuda } from '../support/device';
import { enqueue, type Row, sampleRows } from '../support/sample-rows';

/** Whether `token` is what the distribution gives at u, up to rounding of the sums at the borders. */
function expectDrawn(token: number, probabilities: Float64Array, u: number): void {
  expect(probabilities[token]).toBeGreaterThan(0);
  const low = probabilities.subarray(0, token).reduce((sum, p) => sum + p, 0);
  expect(u).toBeGreaterThan(low - 2e-6);
  expect(u).toBeLessThan(low + probabilities[token]! + 2e-6);
}

const randomLogits = (vocab: number, std: number, seed = vocab) =>
  Float32Array.from(rounded(seeded(seed).normal([vocab], std), 'float32').data);

const everySetting: Sampling[] = [
  {},
  { temperature: 0.7 },
  { temperature: 1.3, topK: 10 },
  { topP: 0.8 },
  { minP: 0.05 },
  { temperature: 0.6, topK: 20, topP: 0.95 },
  { temperature: 2, topK: 1000, topP: 0.9, minP: 0.01, repetitionPenalty: 1.2 },
  { temperature: 50, topP: 0.5 },
  { repetitionPenalty: 0.8, topP: 0.99 },
];

test.each([1, 2, 63, 64, 65, 1000, 20011])('draws from the reference distribution, vocabulary of %i', async (vocab) => {
  for (const [i, settings] of everySetting.entries()) {
    const logits = randomLogits(vocab, 3, vocab + i);
    const seen = new Set(Array.from({ length: Math.ceil(vocab / 5) }, (_, j) => (j * 7) % vocab));
    const sampling = { ...settings, seed: 12345 + i };
    const positions = Array.from({ length: 20 }, (_, j) => j * 1013);
    const { tokens, logprobs } = await sampleRows(positions.map((position) => ({ logits, sampling, position, seen })));
    const exact = sampleReference(logits, sampling, { seen });
    positions.forEach((position, n) => {
      expectDrawn(tokens[n]!, exact.probabilities, uniformAt(sampling.seed, position));
      expect(Math.abs(logprobs[n]! - exact.logprobs[tokens[n]!]!)).toBeLessThan(2e-6 * (1 + Math.abs(logprobs[n]!)));
    });
  }
});

describe("Hugging Face's processors", () => {
  const golden = JSON.parse(readFileSync(join(__dirname, '..', 'golden', 'sampling', 'golden.json'), 'utf8'));
  const cases: { sampling: Sampling; seen: number[]; logits: number[]; probabilities: number[]; logprobs: number[] }[] =
    golden.cases;
  test.each(cases.map((item) => [item.sampling, item] as const))('%j', async (sampling, item) => {
    const seen = new Set(item.seen);
    const exact = sampleReference(item.logits, sampling, { seen });
    item.probabilities.forEach((probability, id) => {
      expect(exact.probabilities[id]! > 0).toBe(probability > 0);
      expect(Math.abs(exact.probabilities[id]! - probability)).toBeLessThan(2e-6);
      expect(exact.logprobs[id]).toBeCloseTo(item.logprobs[id]!, 10);
    });
    const positions = Array.from({ length: 200 }, (_, j) => j);
    const { tokens } = await sampleRows(
      positions.map((position) => ({ logits: item.logits, sampling, position, seen })),
    );
    const probabilities = Float64Array.from(item.probabilities);
    positions.forEach((position, n) => {
      expectDrawn(tokens[n]!, probabilities, uniformAt(0, position));
    });
  });
});

describe('frequencies, by chi-square', () => {
  // 30,000 draws of one distribution: over positions, and over seeds.
  test.each([
    ['positions', {}],
    ['positions', { temperature: 0.8, topK: 12, topP: 0.9 }],
    ['seeds', { topP: 0.95 }],
    ['seeds', { minP: 0.02, temperature: 1.5 }],
  ] as const)('over %s, %j', async (over, settings) => {
    const logits = randomLogits(48, 1.5);
    const exact = sampleReference(logits, settings).probabilities;
    const counts = new Float64Array(48);
    const draws = 30_000;
    for (let start = 0; start < draws; start += 1000) {
      const rows = Array.from({ length: 1000 }, (_, j) =>
        over === 'positions'
          ? { logits, sampling: { ...settings, seed: 99 }, position: start + j }
          : { logits, sampling: { ...settings, seed: (start + j) * 2 ** 20 }, position: 5 },
      );
      for (const token of (await sampleRows(rows)).tokens) counts[token]!++;
    }
    let chiSquare = 0;
    let cells = 0;
    exact.forEach((probability, id) => {
      if (probability === 0) expect(counts[id]).toBe(0);
      if (probability * draws < 5) return;
      chiSquare += (counts[id]! - probability * draws) ** 2 / (probability * draws);
      cells++;
    });
    expect(cells).toBeGreaterThan(6);
    // Chi-square is about normal with mean n and deviation sqrt(2n); four deviations on either side.
    const freedom = cells - 1;
    expect(Math.abs(chiSquare - freedom)).toBeLessThan(4 * Math.sqrt(2 * freedom));
  });
});

describe('temperature 0', () => {
  test('takes the greatest, the lowest id among equals', async () => {
    for (const vocab of [1, 5, 64, 1003]) {
      const logits = randomLogits(vocab, 2);
      const best = logits.indexOf(Math.max(...logits));
      if (vocab > 5) logits[vocab - 1] = logits[best]!;
      const { tokens, logprobs } = await sampleRows([{ logits, sampling: { temperature: 0, topK: 3, topP: 0.1 } }]);
      expect(tokens).toEqual([best]);
      expect(logprobs[0]).toBeCloseTo(sampleReference(logits, {}).logprobs[best]!, 5);
    }
  });

  test('0 and -0 are equal', async () => {
    expect((await sampleRows([{ logits: [-1, -0, 0], sampling: { temperature: 0 } }])).tokens).toEqual([1]);
    expect((await sampleRows([{ logits: [-1, 0, -0, -3], sampling: { topK: 1, seed: 3 } }])).tokens[0]).toBeLessThan(3);
  });

  test('comes after the repetition penalty', async () => {
    const logits = [1, 3, 2.8, -1];
    const sampling = { temperature: 0, repetitionPenalty: 1.1 };
    expect((await sampleRows([{ logits, sampling, seen: new Set([1]) }])).tokens).toEqual([2]);
    expect((await sampleRows([{ logits: [-3, -2, -2.1], sampling, seen: new Set([1]) }])).tokens).toEqual([2]);
    expect((await sampleRows([{ logits, sampling: { temperature: 0 }, seen: new Set([1]) }])).tokens).toEqual([1]);
  });
});

/** Every token that 300 positions give. */
async function support(logits: number[], sampling: Sampling, more: Partial<Row> = {}): Promise<number[]> {
  const rows = Array.from({ length: 300 }, (_, position) => ({ logits, sampling, position, ...more }));
  return [...new Set((await sampleRows(rows)).tokens)].sort((a, b) => a - b);
}

describe('edges of the filters', () => {
  const logs = (...p: number[]) => p.map((x) => Math.fround(Math.log(x)));

  test('top-p keeps the smallest set that reaches p, at least one token', async () => {
    const logits = logs(0.1, 0.4, 0.2, 0.3);
    expect(await support(logits, { topP: 0 })).toEqual([1]);
    expect(await support(logits, { topP: 0.39 })).toEqual([1]);
    expect(await support(logits, { topP: 0.41 })).toEqual([1, 3]);
    expect(await support(logits, { topP: 0.69 })).toEqual([1, 3]);
    expect(await support(logits, { topP: 0.71 })).toEqual([1, 2, 3]);
    expect(await support(logits, { topP: 0.95 })).toEqual([0, 1, 2, 3]);
    expect(await support(logits, { topP: 1 })).toEqual([0, 1, 2, 3]);
  });

  test('equal scores at the edge of top-p: the lowest ids stay', async () => {
    const equal = new Array(8).fill(1.5);
    expect(await support(equal, { topP: 0.3 })).toEqual([0, 1, 2]);
    expect(await support(equal, { topP: 0.25 })).toEqual([0, 1]);
    expect(await support(equal, { topP: 1e-9 })).toEqual([0]);
  });

  test('equal scores at the edge of top-k all stay', async () => {
    const logits = [3, 1, 2, 2, 0.5, 2];
    expect(await support(logits, { topK: 1 })).toEqual([0]);
    expect(await support(logits, { topK: 2 })).toEqual([0, 2, 3, 5]);
    expect(await support(logits, { topK: 5 })).toEqual([0, 1, 2, 3, 5]);
    expect(await support(logits, { topK: 100 })).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('top-p measures what top-k has left, min-p the greatest', async () => {
    const logits = logs(0.05, 0.35, 0.3, 0.3);
    expect(await support(logits, { topK: 1, topP: 0.9 })).toEqual([1]);
    expect(await support(logs(0.5, 0.2, 0.2, 0.1), { topP: 0.65 })).toEqual([0, 1]);
    expect(await support(logs(0.5, 0.2, 0.2, 0.1), { minP: 0.3 })).toEqual([0, 1, 2]);
    expect(await support(logs(0.5, 0.2, 0.2, 0.1), { minP: 1 })).toEqual([0]);
  });

  test('-inf is never drawn, nor what is not allowed', async () => {
    expect(await support([0, -Infinity, 0, -Infinity], {})).toEqual([0, 2]);
    expect(await support([0, -Infinity, 0, -Infinity], { topK: 3, topP: 0.999 })).toEqual([0, 2]);
    const allowed = new Set([1, 3]);
    expect(await support([9, 0, 9, 0], { restricted: true }, { allowed })).toEqual([1, 3]);
    expect(await support([9, 0, 9, 0], { restricted: true, temperature: 0 }, { allowed })).toEqual([1]);
    expect(await support([0, 0, 0, 0], {}, { allowed })).toEqual([0, 1, 2, 3]);
  });

  test('logprob is that of the unmodified logits', async () => {
    const logits = [2, 1, 0];
    const { tokens, logprobs } = await sampleRows([
      { logits, sampling: { temperature: 0.1, topK: 1, repetitionPenalty: 9 }, seen: new Set([0]) },
    ]);
    expect(tokens).toEqual([1]);
    expect(logprobs[0]).toBeCloseTo(1 - Math.log(Math.exp(2) + Math.exp(1) + 1), 6);
  });
});

describe('laws', () => {
  test('same bits twice, alone and in company, in any row and slot', async () => {
    const rows = everySetting.map((settings, i) => ({
      logits: randomLogits(5003, 2, i),
      sampling: { ...settings, seed: i },
      position: i * 31,
      seen: new Set([i, 2 * i + 1]),
    }));
    const all = await sampleRows(rows);
    expect(await sampleRows(rows)).toEqual(all);
    const backwards = await sampleRows([...rows].reverse());
    expect(backwards.tokens.reverse()).toEqual(all.tokens);
    for (const [i, row] of rows.entries()) {
      expect(await sampleRows([row])).toEqual({ tokens: [all.tokens[i]], logprobs: [all.logprobs[i]] });
    }
  });

  test('rows of -1 are left out, whatever their logits', async () => {
    const { params, intParams } = encodeSampling({ temperature: 0 });
    const { token, logprob } = sample({
      logits: Tensor.from([Number.NaN, 1, 0, 1], { dtype: 'float32', shape: [2, 2] }),
      rows: Tensor.from([-1, 0], { dtype: 'int32', shape: [2] }),
      positions: Tensor.from([0, 0], { dtype: 'int32', shape: [2] }),
      params: Tensor.from(params, { dtype: 'float32', shape: [1, 8] }),
      intParams: Tensor.from(intParams, { dtype: 'int32', shape: [1, 8] }),
    });
    expect(Array.from(await token.read())).toEqual([-1, 1]);
    expect((await logprob.read())[0]).toBe(0);
  });
});

describe('errors', () => {
  test.each([
    [[0, Number.NaN, 1], {}, 'sample: logits[1] must hold no NaN and no +inf'],
    [[0, Infinity, 1], {}, 'sample: logits[1] must hold no NaN and no +inf'],
    [[-Infinity, -Infinity, -Infinity], {}, 'sample: logits[1] must leave a token to choose'],
    [[1, 2, 3], { restricted: true }, 'sample: logits[1] must leave a token to choose'],
  ])('%j %j', async (logits, sampling, message) => {
    const rows = [
      { logits: [0, 0, 0], sampling: {} },
      { logits, sampling },
      { logits, sampling },
    ];
    const { token, logprob } = enqueue(rows);
    await expect(token.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT', op: 'sample', message });
    // A GPU says it once.
    if (!onCuda) await expect(logprob.read()).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  });

  const zeros = (shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
  const ints = (shape: number[]) => Tensor.zeros({ dtype: 'int32', shape });
  const good = () => ({
    logits: zeros([2, 40]),
    rows: ints([2]),
    positions: ints([2]),
    params: zeros([3, 8]),
    intParams: ints([3, 8]),
  });

  test('a slot out of range', async () => {
    for (const slot of [3, -2]) {
      const rows = Tensor.from([0, slot], { dtype: 'int32', shape: [2] });
      await expect(sample({ ...good(), rows }).token.read()).rejects.toMatchObject({
        code: 'ERR_ARGUMENT',
        message: `sample: rows[1] must be from -1 to 2, got ${slot}`,
      });
    }
  });

  test.each([
    ['ERR_SHAPE', { logits: zeros([40]) }],
    ['ERR_SHAPE', { rows: ints([3]) }],
    ['ERR_SHAPE', { positions: ints([1]) }],
    ['ERR_SHAPE', { params: zeros([3, 7]) }],
    ['ERR_SHAPE', { intParams: ints([2, 8]) }],
    ['ERR_SHAPE', { seen: ints([3, 1]) }],
    ['ERR_SHAPE', { allowed: ints([2, 2]) }],
    ['ERR_DTYPE', { logits: Tensor.zeros({ dtype: 'bfloat16', shape: [2, 40] }) as never }],
    ['ERR_DTYPE', { rows: zeros([2]) as never }],
    ['ERR_DTYPE', { params: ints([3, 8]) as never }],
  ])('%s %#', (code, change) => {
    expect(errorOf(() => sample({ ...good(), ...change }))).toMatchObject({ code, op: 'sample' });
  });
});
