// Two runs give the same bits: what matrix units compute of the two kinds of attention, and every family as a whole, in
// float32 and in bfloat16. A race shows here first.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { load } from '../../lib/generation/load';
import type { Tensor } from '../../lib/tensor/tensor';
import { bitsOf, makeCase, runCase } from '../support/linear-attention';
import { allLogits } from '../support/network';
import { PagedCache, promptOf, slice } from '../support/paged-cache';

const twice = async (run: () => Promise<Buffer>) => {
  const first = await run();
  for (let i = 0; i < 2; i++) expect((await run()).equals(first)).toBe(true);
};

describe.each(['additive', 'delta', 'lowRank'] as const)('linearAttention, %s', (rule) => {
  test.each([
    ['none', 64, 64],
    ['token', 128, 128],
    ['channel', 128, 128],
    ['channel', 64, 64],
    ['token', 256, 64],
  ] as const)('decay %s, K %i, V %i', async (decay, K, V) => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const lengths = [1, 1, 300, 64];
      const x = makeCase({ rule, decay, K, V, dtype, heads: [2, 2, 2], lengths, seed: K + V });
      await twice(() => {
        const { out, state } = runCase(x);
        return bitsOf([out, state]);
      });
    }
  });
});

describe.each(['float32', 'bfloat16'] as const)('softmaxAttention, %s', (dtype) => {
  test.each([64, 128, 256])('heads of %i', async (width) => {
    const shape = { heads: 4, kvHeads: 2, width, pageTokens: 64, tablePages: 12, dtype, cacheDtype: dtype };
    const prompt = promptOf(shape, 600, width);
    await twice(async () => {
      const cache = new PagedCache(shape, 1);
      await cache.written;
      const outs: (Tensor | undefined)[] = [];
      for (const [from, to] of [[0, 500] as const, [500, 501] as const, [501, 600] as const]) {
        outs.push(cache.attend([{ row: 0, position: from, prompt: slice(prompt, from, to) }]).out);
      }
      return bitsOf(outs);
    });
  });
});

const golden = join(__dirname, '..', 'golden');
const families = readdirSync(golden, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap(({ name }) => readdirSync(join(golden, name)).map((kind) => `${name}/${kind}`))
  .filter((name) => existsSync(join(golden, name, 'config.json')));

test.each(families)('%s', async (name) => {
  const tokens = Int32Array.from({ length: 200 }, (_, i) => (i * 31) % 200);
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const model = await load({ model: join(golden, name), dtype, maxSequences: 2 });
    await twice(async () => {
      const { data } = await allLogits(model, tokens, [150, 1, 49]);
      const sampled = { tokens, maxTokens: 24, temperature: 0.8, seed: 3, ignoreEos: true };
      const logprobs: number[] = [];
      for await (const { token, logprob } of model.generate(sampled)) logprobs.push(token, logprob);
      return Buffer.concat([Buffer.from(data.buffer), Buffer.from(Float64Array.from(logprobs).buffer)]);
    });
    await model.dispose();
  }
});
