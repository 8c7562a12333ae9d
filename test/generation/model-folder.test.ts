// What a folder says of itself without its weights is what the loaded model says.
import { defaultModel, load } from '../../lib/generation/load';
import { readModelFolder } from '../../lib/generation/model-folder';
import { counters } from '../../lib/tensor/device';
import { device } from '../support/device';
import { readGolden } from '../support/golden';
import { thrown } from '../support/held';

const folders = ['gated_deltanet/hybrid', 'gated_deltanet/linear', 'qwen3_5/grouped', 'qwen3_5/tied'].map(
  (name) => [name, () => readGolden(name).folder] as const,
);

test.each([...folders, ['the default model', () => defaultModel] as const])('of %s', async (_, folder) => {
  for (const dtype of ['auto', 'float16', 'int8'] as const) {
    const before = counters(device);
    const { info } = await readModelFolder(folder(), { device, dtype });
    const after = counters(device);
    expect(after.commands).toBe(before.commands);
    expect(after.tensors).toBeLessThanOrEqual(before.tensors); // tensors of earlier tests may be collected meanwhile
    const model = await load({ model: folder(), device, dtype, maxSequences: 1 });
    const session = model.createSession();
    const { usage } = await session.generate({ tokens: [1, 2, 3], maxTokens: 1 }).result;
    await model.dispose();
    expect({ ...info }).toEqual({ ...model.info });
    expect(info.stateBytes).toBe(usage.stateBytes);
    expect(info.parameters).toBeGreaterThan(0);
  }
});

test('a folder that is none, and a dtype that is none', async () => {
  expect(await thrown(() => readModelFolder('/nowhere'))).toMatchObject({ code: 'ERR_FILE' });
  const dtype = 'int4' as 'int8';
  expect(await thrown(() => readModelFolder(defaultModel, { dtype }))).toMatchObject({ code: 'ERR_ARGUMENT' });
});
