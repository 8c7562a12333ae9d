// The golden cases hold together: greedy tokens are the argmax of the logits before them, gaps are what they say.

import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { readGolden } from './golden';

const root = join(__dirname, '..', 'golden');
const cases = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .filter((file) => /^[^/]+\/[^/]+\/golden\.json$/.test(file))
  .map((file) => dirname(file))
  .filter((name) => !name.startsWith('mechanisms/')); // of ops, not of models

function best(row: Float32Array): { index: number; gap: number } {
  const order = [...row.keys()].sort((a, b) => row[b]! - row[a]!);
  return { index: order[0]!, gap: Math.fround(row[order[0]!]! - row[order[1]!]!) };
}

test.each(cases)('%s', (name) => {
  const golden = readGolden(name);
  const tokens = golden.int32('tokens');
  const { shape, data: logits } = golden.float32('logits');
  const greedy = golden.int32('greedy_tokens').data;
  const greedyLogits = golden.float32('greedy_logits');
  const [length, vocabulary] = shape as [number, number];
  expect(shape).toEqual([tokens.data.length, greedyLogits.shape[1]]);
  expect(greedyLogits.shape[0]).toBe(greedy.length);

  const last = best(logits.subarray((length - 1) * vocabulary));
  expect(last.index).toBe(greedy[0]);
  expect(last.gap).toBe(golden.float32('top2_gap').data[length - 1]);
  const gaps = golden.float32('greedy_top2_gap').data;
  for (let i = 0; i < greedy.length; i++) {
    const row = best(greedyLogits.data.subarray(i * vocabulary, (i + 1) * vocabulary));
    expect(row.gap).toBe(gaps[i]);
    if (i + 1 < greedy.length) expect(row.index).toBe(greedy[i + 1]);
  }
});

test('an array of another dtype or name is named in the error', () => {
  const golden = readGolden('qwen3_5/tied');
  expect(() => golden.int32('logits')).toThrow(/no int32 array logits, has .*tokens/);
  expect(() => golden.float32('logit')).toThrow(/no float32 array logit,/);
});
