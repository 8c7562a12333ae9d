// The model that the package ships: its logits against fla's naive float32 run, and text from end to end.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { nd } from '../../lib/ops/reference';
import { relativeError } from '../support/arrays';
import { readGoldenArrays } from '../support/golden';
import { allLogits, insideOf, slicesOf } from '../support/network';

const golden = readGoldenArrays(path.join(__dirname, '..', 'golden', 'default-model', 'parity.safetensors'));
const novel = readFileSync(path.join(__dirname, '..', '..', 'examples', 'persuasion.txt'), 'utf8');
const tolerance = 1e-4;

describe('in float32', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load({ dtype: 'float32', maxSequences: 1 });
  });
  afterAll(() => model.dispose());

  test.each([0, 1, 2])('logits of long prompt %i are those of fla', async (i) => {
    const ids = golden[`ids.${i}`]!.data;
    const stored = golden[`logits.${i}`]!;
    const [rows, width] = stored.shape as [number, number];
    const all = await allLogits(model, ids, slicesOf(ids.length, 512));
    const ours = nd(stored.shape);
    for (const [row, position] of golden[`positions.${i}`]!.data.entries()) {
      ours.data.set(all.data.subarray(position * width, (position + 1) * width), row * width);
    }
    const theirs = nd(stored.shape);
    theirs.data.set(stored.data);
    expect(rows).toBe(26);
    expect(relativeError(ours, theirs)).toBeLessThanOrEqual(tolerance);

    // Every position, teacher-forced: the same greatest logit where the golden's two greatest are far enough apart.
    const top = golden[`top.${i}`]!.data;
    const argmax = golden[`argmax.${i}`]!.data;
    let clear = 0;
    const wrong: number[] = [];
    for (let t = 0; t < ids.length; t++) {
      let [best, most] = [0, 0];
      for (let j = 0; j < width; j++) {
        const logit = all.data[t * width + j]!;
        if (logit > all.data[t * width + best]!) best = j;
        most = Math.max(most, Math.abs(logit));
      }
      const gap = top[2 * t]! - top[2 * t + 1]!;
      if (gap <= 10 * tolerance * most) continue;
      clear++;
      if (best !== argmax[t]) wrong.push(t);
    }
    expect(wrong).toEqual([]);
    expect(clear / ids.length).toBeGreaterThanOrEqual(0.95);
  });
});

describe('as it is loaded without options', () => {
  let model: Model;
  beforeAll(async () => {
    model = await load();
  });
  afterAll(() => model.dispose());

  const processed = async (session: unknown): Promise<number> => {
    const { sequence } = session as {
      sequence: Parameters<ReturnType<typeof insideOf>['core']['scheduler']['store']['readRow']>[0];
    };
    return (await insideOf(model).core.scheduler.store.readRow(sequence)).processed;
  };

  test('has the sizes of its card', () => {
    expect(model.info).toMatchObject({
      family: 'gated_deltanet',
      dtype: 'bfloat16',
      parameters: 17841828,
      vocabularySize: 8192,
      kvBytesPerToken: 0,
    });
  });

  test('streams the text of its result, and the same text for the same seed', async () => {
    const session = model.createSession();
    const options = { prompt: novel.slice(20_000, 24_000), maxTokens: 60, seed: 11 };
    const run = session.generate(options);
    let text = '';
    for await (const chunk of run) text += chunk.text;
    const result = await run.result;
    expect(result.text).toBe(text);
    expect(text.length).toBeGreaterThan(60);
    expect(model.tokenizer.decode(result.tokens)).toBe(text);
    expect((await model.generate(options).result).text).toBe(text);
    await session.dispose();
  });

  test('ends before a stop string', async () => {
    const options = { prompt: novel.slice(20_000, 22_000), maxTokens: 60, temperature: 0 };
    const whole = (await model.generate(options).result).text;
    const stop = whole.slice(30, 37);
    const chunks: string[] = [];
    const run = model.generate({ ...options, stop: [stop, 'never written'] });
    for await (const { text } of run) chunks.push(text);
    const { text, finishReason } = await run.result;
    expect(finishReason).toBe('stop');
    expect(text).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(chunks.join('')).toBe(text);
  });

  test('reads of an appended question only the question, and finds the fact', async () => {
    const fact = '\nThe magic number of the marble fountain is 48151.\n';
    const document = novel.slice(40_000, 42_000) + fact + novel.slice(42_000, 50_000);
    const session = model.createSession();
    const { promptTokens } = await session.prefill({ prompt: document });
    expect(await processed(session)).toBe(promptTokens);
    const append = '\nQuestion: What is the magic number of the marble fountain?\nAnswer:';
    const question = (await model.tokenizer.encode(append)).length;
    const run = session.generate({ append, maxTokens: 6, temperature: 0 });
    const { text, usage } = await run.result;
    expect(text).toContain('48151');
    expect(usage).toMatchObject({ cachedTokens: promptTokens, promptTokens: promptTokens + question });
    expect(await processed(session)).toBeLessThanOrEqual(promptTokens + question + usage.completionTokens + 1);
    await session.dispose();
  });

  test('never splits a character', async () => {
    // Tokens of single bytes are likely after text in scripts that the vocabulary lacks, and at a high temperature.
    const prompt = '\u041f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d \u{1f600} '.repeat(30);
    let multibyte = 0;
    for (const seed of [1, 2, 3]) {
      const run = model.generate({ prompt, maxTokens: 80, temperature: 0.7, seed, ignoreEos: true });
      let text = '';
      for await (const chunk of run) {
        expect(chunk.text).not.toMatch(/\p{Surrogate}/u);
        text += chunk.text;
      }
      const { tokens } = await run.result;
      expect(text).toBe(model.tokenizer.decode(tokens));
      multibyte += [...text].filter((character) => character > '\u007f' && character !== '\ufffd').length;
    }
    expect(multibyte).toBeGreaterThan(20);
  });
});
