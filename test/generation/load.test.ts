// Opening a model folder: every way it can be bad has a code, and what fails leaves nothing behind.
import { copyFileSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { LinattnError } from '../../lib/errors';
import { type LoadOptions, load } from '../../lib/generation/load';
import { cpu, setThreads } from '../../lib/tensor/device';
import { device, onCuda } from '../support/device';
import { readGolden } from '../support/golden';
import { collectForgotten, held, thrown } from '../support/held';
import { editConfig, editWeights, modelFolder, removeModelFolders } from '../support/model-folder';

const hybrid = 'gated_deltanet/hybrid';
const goldenTokenizer = path.join(__dirname, '..', 'golden', 'tokenizer');
const tokens = Int32Array.from({ length: 300 }, (_, i) => (i * 31) % 250);

beforeAll(collectForgotten);
afterAll(removeModelFolders);

/** The error of a load, which must leave tensors and bytes as they were. */
async function failure(options: LoadOptions): Promise<LinattnError> {
  const before = await held();
  let error: unknown;
  try {
    await (await load(options)).dispose();
  } catch (caught) {
    error = caught;
  }
  expect(await held()).toEqual(before);
  return error as LinattnError;
}

type Case = [what: string, code: string, message: RegExp, spoil: (folder: string) => void];

const file = (folder: string, name = 'model.safetensors') => path.join(folder, name);
const write = (name: string, text: string) => (folder: string) => writeFileSync(file(folder, name), text);
const norm = 'model.norm.weight';

describe('a folder', () => {
  const cases: Case[] = [
    ['that is not there', 'ERR_FILE', /must be a folder/, (folder) => rmSync(folder, { recursive: true })],
    ['without config.json', 'ERR_FILE', /config\.json/, (folder) => rmSync(file(folder, 'config.json'))],
    ['with a config that is not JSON', 'ERR_MODEL_UNSUPPORTED', /not JSON/, write('config.json', '{"model_type":')],
    ['with a config that is a list', 'ERR_MODEL_UNSUPPORTED', /JSON object/, write('config.json', '[]')],
    [
      'of an unknown family',
      'ERR_MODEL_UNSUPPORTED',
      /mamba9/,
      (folder) => editConfig(folder, { model_type: 'mamba9' }),
    ],
    ['of no family', 'ERR_MODEL_UNSUPPORTED', /model_type/, (folder) => editConfig(folder, { model_type: undefined })],
    ['with an unknown field', 'ERR_MODEL_UNSUPPORTED', /warp_drive/, (folder) => editConfig(folder, { warp_drive: 1 })],
    [
      'with layers of no size',
      'ERR_MODEL_UNSUPPORTED',
      /hidden_size/,
      (folder) => editConfig(folder, { hidden_size: -4 }),
    ],
    ['with absurd sizes', 'ERR_WEIGHTS', /must be \[/, (folder) => editConfig(folder, { vocab_size: 2 ** 52 })],
    [
      'with a bad generation config',
      'ERR_MODEL_UNSUPPORTED',
      /generation_config/,
      write('generation_config.json', '{'),
    ],
    ['without weights', 'ERR_FILE', /model\.safetensors/, (folder) => rmSync(file(folder))],
    ['with an empty file of weights', 'ERR_SAFETENSORS', /too few/, (folder) => truncateSync(file(folder), 0)],
    ['with a header cut short', 'ERR_SAFETENSORS', /header/, (folder) => truncateSync(file(folder), 100)],
    [
      'with data cut short',
      'ERR_SAFETENSORS',
      /must lie in the file/,
      (folder) => truncateSync(file(folder), readFileSync(file(folder)).length - 4),
    ],
    [
      'with a hostile header',
      'ERR_SAFETENSORS',
      /overlaps/,
      (folder) =>
        editWeights(folder, (header) => {
          const { dtype, shape, data_offsets } = header[norm]!;
          header.twin = { dtype, shape, data_offsets };
        }),
    ],
    [
      'with a header of 2^63 bytes',
      'ERR_SAFETENSORS',
      /at most/,
      (folder) => {
        const bytes = readFileSync(file(folder));
        bytes.writeBigUInt64LE(1n << 63n);
        writeFileSync(file(folder), bytes);
      },
    ],
    ['with an index that is not JSON', 'ERR_SAFETENSORS', /index/, write('model.safetensors.index.json', 'x')],
    [
      'with an index that names an absent shard',
      'ERR_FILE',
      /shard-9/,
      write('model.safetensors.index.json', JSON.stringify({ weight_map: { [norm]: 'shard-9.safetensors' } })),
    ],
    ['with a tokenizer that is not JSON', 'ERR_TOKENIZER', /tokenizer\.json/, write('tokenizer.json', '{"model"')],
    ['with a tokenizer without a vocabulary', 'ERR_TOKENIZER', /vocab/, write('tokenizer.json', '{"model": {}}')],
  ];
  test.each(cases)('%s is %s', async (_, code, message, spoil) => {
    const folder = modelFolder(hybrid);
    spoil(folder);
    const error = await failure({ model: folder });
    expect(LinattnError.isInstance(error)).toBe(true);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test('that is a file is ERR_FILE', async () => {
    expect(await failure({ model: __filename })).toMatchObject({ code: 'ERR_FILE' });
  });
});

test('one error names every tensor that is missing, unused, of another shape or of another dtype', async () => {
  const folder = modelFolder(hybrid);
  editWeights(folder, (header) => {
    header['model.extra.weight'] = header['model.layers.1.mlp_norm.weight']!;
    delete header['model.layers.1.mlp_norm.weight'];
    header[norm]!.shape = [8, 8];
    const projection = header['model.layers.0.mlp.up_proj.weight']!;
    projection.dtype = 'I32';
  });
  const error = await failure({ model: folder });
  expect(error.code).toBe('ERR_WEIGHTS');
  for (const problem of [
    /model\.layers\.1\.mlp_norm\.weight is missing/,
    /model\.extra\.weight is not used/,
    /model\.norm\.weight must be \[64\], got \[8, 8\]/,
    /up_proj\.weight must be float32, bfloat16 or float16, got int32/,
  ]) {
    expect(error.message).toMatch(problem);
  }
});

test('NaN among the weights is a warning that names the tensor, and the model loads', async () => {
  const folder = modelFolder(hybrid);
  editWeights(folder, (header, data) => {
    for (const index of [3, 9]) data.writeFloatLE(Number.NaN, header[norm]!.data_offsets[0] + 4 * index);
  });
  const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
  const model = await load({ model: folder });
  const calls: unknown[][] = warned.mock.calls.slice();
  warned.mockRestore();
  expect(calls).toEqual([
    [expect.stringMatching(/model\.norm\.weight holds 2 NaN/), { type: 'LinattnWarning', code: 'LINATTN_NAN_WEIGHTS' }],
  ]);
  const session = model.createSession();
  await session.prefill({ tokens });
  expect(await thrown(() => session.generate().result)).toMatchObject({
    op: 'sample',
    message: expect.stringMatching(/NaN/),
  });
  await model.dispose();
});

test('without a tokenizer token ids work and text is ERR_TOKENIZER', async () => {
  const model = await load({ model: modelFolder(hybrid) });
  expect((await model.generate({ tokens, maxTokens: 2, ignoreEos: true }).result).tokens.length).toBe(2);
  expect(await thrown(() => model.generate({ prompt: 'x' }).result)).toMatchObject({ code: 'ERR_TOKENIZER' });
  expect(await thrown(() => model.generate({ tokens, stop: 'x' }).result)).toMatchObject({ code: 'ERR_TOKENIZER' });
  await model.dispose();
});

test('a file that is cut while it is read is an error, not a crash', async () => {
  const folder = modelFolder(hybrid);
  const error = await failure({ model: folder, onProgress: () => truncateSync(file(folder), 4096) });
  expect(['ERR_SAFETENSORS', 'ERR_FILE']).toContain(error.code);
});

test.each<[string, LoadOptions, string]>([
  ['device', { device: 'gpu' as never }, 'ERR_DEVICE'],
  ['device', { device: 'cuda:99' }, 'ERR_DEVICE'],
  ['dtype', { dtype: 'float8' as never }, 'ERR_ARGUMENT'],
  ['threads', { threads: 0 }, 'ERR_ARGUMENT'],
  ['threads', { threads: 1e9 }, 'ERR_ARGUMENT'],
  ['maxSequences', { maxSequences: 0 }, 'ERR_ARGUMENT'],
  ['maxSequences', { maxSequences: 1e9 }, 'ERR_ARGUMENT'],
  ['stepTokens', { scheduling: { stepTokens: 100 } }, 'ERR_ARGUMENT'],
  ['stepTokens', { scheduling: { stepTokens: '512' as never } }, 'ERR_ARGUMENT'],
  ['scheduling', { scheduling: 5 as never }, 'ERR_ARGUMENT'],
  ['targetStepMs', { scheduling: { targetStepMs: 0 } }, 'ERR_ARGUMENT'],
  ['maxQueued', { scheduling: { maxQueued: -1 } }, 'ERR_ARGUMENT'],
  ['model', { model: 5 as never }, 'ERR_ARGUMENT'],
])('a bad %s, %j, is %s', async (_, options, code) => {
  const { folder } = readGolden(hybrid);
  expect(await failure({ model: folder, ...options })).toMatchObject({ code });
});

describe('an abort', () => {
  const { folder } = readGolden(hybrid);
  const reason = new Error('not needed any more');

  test('before a load rejects with its reason', async () => {
    expect(await failure({ model: folder, signal: AbortSignal.abort(reason) })).toBe(reason);
  });

  test.each([0, 0.5, 1])('after %d of the weights frees everything', async (share) => {
    const control = new AbortController();
    const onProgress = ({ done, total }: { done: number; total: number }) => {
      if (done >= share * total) control.abort(reason);
    };
    expect(await failure({ model: folder, signal: control.signal, onProgress })).toBe(reason);
  });

  test('after a load does nothing', async () => {
    const control = new AbortController();
    const model = await load({ model: folder, signal: control.signal });
    control.abort(reason);
    expect((await model.generate({ tokens, maxTokens: 2, ignoreEos: true }).result).tokens.length).toBe(2);
    await model.dispose();
  });
});

test('an error thrown by onProgress rejects the load and frees everything', async () => {
  const cause = new Error('broken progress bar');
  const onProgress = () => {
    throw cause;
  };
  expect(await failure({ model: readGolden(hybrid).folder, onProgress })).toBe(cause);
});

test('threads of the cpu device are those of the last load that named a number', async () => {
  const { folder } = readGolden(hybrid);
  const before = cpu().threads;
  const one = await load({ model: folder, threads: 3 });
  const two = await load({ model: folder });
  expect(cpu().threads).toBe(3);
  setThreads(before);
  await Promise.all([one.dispose(), two.dispose()]);
});

test('deterministic goes with a prefix cache on the cpu, which always is so, and not on a GPU', async () => {
  const options = { model: readGolden(hybrid).folder, deterministic: true };
  const prefixCache = { hostBytes: 2 ** 24 };
  const models = [await load({ ...options, prefixCache, device: 'cpu' }), await load({ ...options, device })];
  for (const model of models) await model.dispose();
  if (onCuda) expect(await failure({ ...options, prefixCache, device })).toMatchObject({ code: 'ERR_UNSUPPORTED' });
});

test('a folder with a tokenizer reads text', async () => {
  const folder = modelFolder(hybrid);
  mkdirSync(folder, { recursive: true });
  copyFileSync(path.join(goldenTokenizer, 'tokenizer.json'), file(folder, 'tokenizer.json'));
  const model = await load({ model: folder });
  expect((await model.tokenizer.encode('a')).length).toBe(1);
  await model.dispose();
});
