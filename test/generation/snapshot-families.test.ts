// Saved, and loaded in a new process, a state of every family goes on to the bit as if nobody had stopped: on the cpu, and
// on one GPU, where both are alone in their steps. Needs the compiled library (npm run build).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { load } from '../../lib/generation/load';
import { families } from '../../lib/model/families';
import { seeded } from '../support/arrays';
import { readGolden } from '../support/golden';
import { runProgram } from '../support/programs';

interface Continued {
  readonly chunks: readonly (readonly [token: number, logprob: number])[];
  readonly logits: readonly number[];
}

/** A golden checkpoint of each type of model. */
const names = [
  'delta_net/gated',
  'gated_deltanet/hybrid',
  'gla/grouped',
  'granitemoehybrid/experts',
  'gsa/grouped',
  'hgrn2/bounded',
  'minimax/scaled',
  'kda/plain',
  'mamba2/grouped',
  'qwen3_5/grouped',
  'qwen3_5_moe/experts',
  'qwen3_next/experts',
  'retnet/gated',
  'rwkv7/author',
  'rwkv7/fla',
  'xlstm/single',
];

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(path.join(tmpdir(), 'linattn-families-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));

test('every family is there', () => {
  const types = names.map((name) =>
    JSON.parse(readFileSync(path.join(readGolden(name).folder, 'config.json'), 'utf8')),
  );
  const known = new Set(types.map(({ model_type }: { model_type: string }) => model_type));
  for (const { modelTypes } of families) expect(modelTypes.some((type) => known.has(type))).toBe(true);
});

test.each(names)('%s', async (name) => {
  const { folder } = readGolden(name);
  const random = seeded(3);
  const model = await load({ model: folder, maxSequences: 1 });
  const text = (length: number) => Int32Array.from({ length }, () => random.int(model.info.vocabularySize));
  const [prompt, append] = [text(150), text(33)];
  const session = model.createSession();
  await session.prefill({ tokens: prompt });
  await session.generate({ maxTokens: 7, temperature: 0.8, seed: 5, ignoreEos: true }).result;
  const snapshot = await session.snapshot();
  const file = path.join(scratch, 'state');
  await snapshot.save(file);
  const chunks: [number, number][] = [];
  const run = session.generate({ append, maxTokens: 12, temperature: 0.8, seed: 5, ignoreEos: true });
  for await (const { token, logprob } of run) chunks.push([token, logprob]);
  const straight: Continued = { chunks, logits: [...(await session.logits())] };
  await model.dispose();

  const args = [folder, file, JSON.stringify([...append])];
  const { printed } = await runProgram<Continued>('continue-state', args);
  expect(printed).toEqual(straight);
});
