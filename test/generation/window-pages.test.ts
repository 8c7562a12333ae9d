// Pages of softmax layers with a window: a ring that has room for a step in flight, whatever the size of a step, and for
// what checkpoints keep.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { expectSameLogits } from '../support/device';
import { readGolden } from '../support/golden';
import { insideOf } from '../support/network';

const { folder } = readGolden('gated_deltanet/hybrid'); // a window of 32 tokens
const prompt = Int32Array.from({ length: 9000 }, (_, i) => (i * 37 + (i >> 4)) % 200);

const open = (stepTokens: number): Promise<Model> =>
  load({ model: folder, maxSequences: 1, maxSnapshots: 0, scheduling: { stepTokens } });

/** Logits after each of some prompts, one session after the other turn. */
async function turns(model: Model): Promise<Float32Array[]> {
  const session = model.createSession();
  const logits = [];
  for (const tokens of [prompt, prompt.subarray(0, 4500), prompt]) {
    await session.prefill({ tokens });
    await session.generate({ maxTokens: 70, temperature: 0, ignoreEos: true }).result;
    logits.push(await session.logits());
  }
  await session.dispose();
  return logits;
}

test.each([64, 1024, 4096])(
  'steps of %i tokens: one sequence and its checkpoints find their pages',
  async (stepTokens) => {
    const [model, wanted] = [await open(stepTokens), await open(512)];
    const [got, expected] = [await turns(model), await turns(wanted)];
    for (const [i, logits] of got.entries()) expectSameLogits(logits, expected[i]!);
    const [pool] = insideOf(model).core.scheduler.store.pagePools as unknown as {
      free: number[];
      holders: Uint32Array;
    }[];
    expect(pool!.free.length).toBe(pool!.holders.length);
    for (const one of [model, wanted]) await one.dispose();
  },
);
