// What `linattn bench` says of a prefill adds up, and its operations are those of the model's sizes.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { measurePrefill } from '../../lib/cli/bench-gpu-prefill';
import { load } from '../../lib/generation/load';
import { counters } from '../../lib/tensor/device';
import { device } from '../support/device';
import { readGolden } from '../support/golden';

test('softmax attention and the rest of a prefill', async () => {
  const { folder } = readGolden('qwen3_5/grouped');
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'));
  const text = config.text_config ?? config;
  const model = await load({ model: folder, scheduling: { stepTokens: 512 } });
  const [count, steps, matmulTflops] = [700, 2, 0.5];
  const { signal } = new AbortController();
  const report = await measurePrefill(model, { device, count, runs: 1, matmulTflops, signal });
  const { softmaxAttention, rest, ops, deviceMs } = report;

  const layers = text.layer_types.filter((type: string) => type === 'full_attention').length;
  const linear = text.layer_types.length - layers;
  const C = text.hidden_size;
  const [heads, kvHeads, width] = [text.num_attention_heads, text.num_key_value_heads, text.head_dim];
  // Every token sees itself and those before it.
  const seen = (count * (count + 1)) / 2;
  expect(softmaxAttention!.tflop).toBeCloseTo((layers * seen * heads * 4 * width) / 1e12, 9);
  const [Hk, Hv] = [text.linear_num_key_heads, text.linear_num_value_heads];
  const [K, V] = [text.linear_key_head_dim, text.linear_value_head_dim];
  const mlp = 3 * C * text.intermediate_size;
  const attention = C * width * (2 * heads + 2 * kvHeads) + heads * width * C;
  const projections = C * (2 * Hk * K + 2 * Hv * V + 2 * Hv) + Hv * V * C;
  const weights = layers * (attention + mlp) + linear * (projections + mlp);
  const recurrence = linear * Math.max(Hk, Hv) * K * V * 7; // decay, delta rule, output
  const head = 2 * C * text.vocab_size; // of the last token
  expect(rest.tflop).toBeCloseTo((count * (2 * weights + recurrence) + head) / 1e12, 9);

  for (const part of [softmaxAttention!, rest]) {
    expect(part.ms).toBeGreaterThan(0);
    expect(part.tflops).toBeCloseTo((1000 * part.tflop) / part.ms, 9);
    expect(part.share).toBeCloseTo(part.tflops / matmulTflops, 9);
  }
  expect(softmaxAttention!.ms + rest.ms).toBeCloseTo(deviceMs, 9);
  const calls = Object.fromEntries(ops.map((op) => [op.name, op.calls]));
  expect(calls).toMatchObject({ softmaxAttention: steps * layers, linearAttention: steps * linear });
  expect(ops.map(({ ms }) => ms)).toEqual(ops.map(({ ms }) => ms).toSorted((a, b) => b - a));

  // Nobody is told of ops any longer.
  const before = counters(device).commands;
  await model.generate({ tokens: [1, 2, 3], maxTokens: 1, ignoreEos: true }).result;
  expect(counters(device).commands).toBeGreaterThan(before);
  await model.dispose();
});
