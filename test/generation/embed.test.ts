// Embeddings: held against logits of an outside implementation, which are the head times the hidden states, so that their
// mean is the head times the mean hidden state.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { readGolden, readGoldenArrays } from '../support/golden';
import { collectForgotten, held } from '../support/held';

const { folder, meta, float32, int32 } = readGolden('qwen3_5/tied');
const tokens = int32('tokens').data;
let model: Model;

beforeAll(async () => {
  await collectForgotten();
  model = await load({ model: folder, maxSequences: 2 });
});
afterAll(() => model.dispose());

test('is the mean hidden state of length 1', async () => {
  const embedding = await model.embed({ tokens });
  expect(Math.hypot(...embedding)).toBeCloseTo(1, 6);
  const head = readGoldenArrays(`${folder}/model.safetensors`)['model.embed_tokens.weight']!;
  const [vocabulary, width] = head.shape as [number, number];
  const ours = Array.from({ length: vocabulary }, (_, v) =>
    embedding.reduce((sum, value, c) => sum + value * head.data[v * width + c]!, 0),
  );
  const logits = float32('logits');
  const mean = new Float64Array(vocabulary);
  logits.data.forEach((value, i) => {
    mean[i % vocabulary]! += value;
  });
  const unit = (vector: ArrayLike<number>) => Array.from(vector, (value) => value / Math.hypot(...Array.from(vector)));
  const wanted = unit(mean);
  const error = Math.hypot(...unit(ours).map((value, v) => value - wanted[v]!));
  expect(error).toBeLessThan(meta.tolerance.relative_l2);
});

test('is the same to the bit beside a generation, and again', async () => {
  const alone = await model.embed({ tokens });
  const session = model.createSession();
  const beside = session.generate({ tokens, maxTokens: 50, temperature: 0, ignoreEos: true });
  expect(await model.embed({ tokens })).toEqual(alone);
  await beside.result;
  await session.dispose();
});

test('leaves nothing behind, whatever ends it', async () => {
  await model.embed({ tokens });
  const before = await held();
  const long = Int32Array.from({ length: 50_000 }, (_, i) => i % 200); // several steps on any device
  const abort = new AbortController();
  const running = model.embed({ tokens: long }, { signal: abort.signal });
  const reason = new Error('enough');
  setImmediate(() => abort.abort(reason));
  await expect(running).rejects.toBe(reason);
  await expect(model.embed({ tokens: [] })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  await expect(model.embed({ tokens: [999] })).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  await expect(model.embed({ append: [1] } as never)).rejects.toMatchObject({ code: 'ERR_ARGUMENT' });
  await expect(model.embed({ prompt: 'text' })).rejects.toMatchObject({ code: 'ERR_TOKENIZER' });
  const sessions = [model.createSession(), model.createSession()];
  await expect(model.embed({ tokens })).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' });
  for (const session of sessions) await session.dispose();
  expect(await held()).toEqual(before);
});
