// What JavaScript can hand over in spite of the types: an error with a code, and everything goes on.
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import {
  DirectoryStore,
  type DType,
  devices,
  LinearAttention,
  MemoryStore,
  ops,
  RedisStore,
  scope,
  Tensor,
  t5RelativeBias,
  WindowedLinearAttention,
} from '../../lib/index';
import { thrown } from '../support/held';
import { useTinyModel } from '../support/loaded-model';

let model: Model;
let folder: string;
useTinyModel((...loaded) => {
  [model, folder] = loaded;
});

/** Values of every kind that is no options object. */
const strays = [null, 0, 5, 'x', true, () => {}, 10n, Symbol('stray')];
/** Any value as the type that is asked for. */
const as = <T>(value: unknown): T => value as T;
const asName = (value: unknown) => [typeof value === 'symbol' ? 'a symbol' : String(value), value] as const;
const rejected = { code: expect.stringMatching(/^ERR_(ARGUMENT|DTYPE|SHAPE)$/) };

describe.each(strays.map(asName))('%s', (_, stray) => {
  test('as options', async () => {
    const session = model.createSession();
    await session.prefill({ tokens: [1, 2, 3] });
    const snapshot = await session.snapshot();
    const calls = [
      () => load(as(stray)),
      () => session.prefill(as(stray)),
      () => session.prefill({ append: [1] }, as(stray)),
      () => session.generate(as(stray)).result,
      () => model.generate(as(stray)).result,
      () => model.createSession(as(stray)),
      () => model.loadSnapshot('/nowhere', as(stray)),
      () => model.tokenizer.encode('a', as(stray)),
      () => model.tokenizer.decode(as(stray)),
      () => snapshot.serialize(as(stray)),
      () => snapshot.save('/nowhere/file', as(stray)),
      () => Tensor.from([1], as(stray)),
      () => Tensor.zeros(as(stray)),
      () => Tensor.zeros({ dtype: 'float32', shape: [1] }).to(as(stray)),
      () => ops.sequences([1], as(stray)),
      () => ops.sequences(as(stray)),
    ];
    for (const call of calls) expect(await thrown(call)).toMatchObject(rejected);
    expect((await session.generate({ maxTokens: 1, ignoreEos: true }).result).tokens).toHaveLength(1);
    await session.dispose();
    snapshot.dispose();
  });

  test('as a signal or a callback', async () => {
    const session = model.createSession();
    const signal = as<AbortSignal>(stray);
    const calls = [
      () => load({ model: folder, signal }),
      () => session.prefill({ tokens: [1] }, { signal }),
      () => session.generate({ tokens: [1], signal }),
      () => model.tokenizer.encode('a', { signal }),
      () => model.loadSnapshot('/nowhere', { signal }),
    ];
    for (const call of calls) expect(await thrown(call)).toMatchObject({ code: 'ERR_ARGUMENT' });
    if (typeof stray !== 'function') {
      const callback = as<() => void>(stray);
      const more = [
        () => load({ model: folder, onProgress: callback }),
        () => session.prefill({ tokens: [1] }, { onPrefillProgress: callback }),
        () => session.generate({ tokens: [1], onPrefillProgress: callback }),
        () => model.tokenizer.encode('a', { onProgress: callback }),
        () => scope(callback as () => never),
        () => devices()[0]!.capture(callback),
      ];
      for (const call of more) expect(await thrown(call)).toMatchObject({ code: 'ERR_ARGUMENT' });
    }
    await session.dispose();
  });

  test('in the place of a tensor, a dtype, a shape or a number', async () => {
    const x = Tensor.zeros({ dtype: 'float32', shape: [1, 8] });
    const q = Tensor.zeros({ dtype: 'float32', shape: [1, 1, 8] });
    const attention = { q, k: q, v: q, rule: { name: 'additive' } as const, sequences: ops.sequences([1]) };
    const calls = [
      () => ops.rmsNorm({ x: as<typeof x>(stray), weight: x, eps: 1e-6 }),
      () => ops.rmsNorm({ x, weight: as(stray), eps: 1e-6 }),
      () => ops.linearAttention({ ...attention, rule: as(stray) }),
      () => ops.linearAttention({ ...attention, sequences: as(stray) }),
      () => Tensor.from(as(stray), { dtype: 'float32', shape: [1] }),
      () => Tensor.from([1], { dtype: as<DType>(stray), shape: [1] }),
      () => Tensor.from([1], { dtype: 'float32', shape: as(stray) }),
    ];
    for (const call of calls) expect(await thrown(call)).toMatchObject(rejected);
    if (typeof stray === 'number') return;
    for (const dtype of ['float32', 'int32', 'int64'] as const) {
      const call = () => Tensor.from([as<number>(stray)], { dtype, shape: [1] });
      expect(await thrown(call)).toMatchObject({ code: 'ERR_ARGUMENT' });
    }
    if (typeof stray === 'symbol') return;
    const session = model.createSession();
    for (const name of ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed', 'maxTokens']) {
      const call = () => session.generate({ tokens: [1], [name]: stray });
      expect(await thrown(call)).toMatchObject({ code: 'ERR_ARGUMENT' });
    }
    await session.dispose();
  });
});

test.each(strays.map(asName))('%s as what layers, stores and ops are made of', async (_, stray) => {
  const x = Tensor.zeros({ dtype: 'float32', shape: [1, 8] });
  const identity = { name: 'identity' } as const;
  const layer = new WindowedLinearAttention({ window: 1, featureMap: identity, windowFactors: [1] });
  const sequence = layer.createSequence({ heads: 1, width: 8 });
  const calls = [
    () => new MemoryStore(as(stray)),
    () => new DirectoryStore('folder', as(stray)),
    () => new RedisStore(as(stray)),
    () => t5RelativeBias([1, 2], as(stray)),
    () => new LinearAttention(as(stray)),
    () => new LinearAttention({ featureMap: as(stray) }),
    () => new WindowedLinearAttention(as(stray)),
    () => new WindowedLinearAttention({ window: 1, featureMap: as(stray), windowFactors: [1] }),
    () => new WindowedLinearAttention({ window: 1, featureMap: identity, windowFactors: as(stray) }),
    () => ops.matmul(as<never>(stray)),
    () => ops.matmul({ x, weight: as(stray) }),
    () => ops.softmaxAttention(as<never>(stray)),
    () => ops.Weight.zeros(as(stray), 'float32'),
    () => ops.Weight.zeros([1, 1], 'float32', as(stray)),
    () => Tensor.zeros({ dtype: 'float32', shape: [as(stray === 0 || stray === 5 ? -1 : stray)] }),
    () => ops.rmsNorm(as<never>(stray)),
    () => ops.FavorProjection.from(as(stray), { directions: 1, width: 1 }),
    () => ops.FavorProjection.from(Float32Array.of(1), as(stray)),
    () => layer.forward(as(stray), sequence),
    () => layer.forward({ q: x, k: as(stray), v: x }, sequence),
    () => layer.forward({ q: x, k: x, v: x }, as(stray)),
    () => load({ model: folder, scheduling: as(stray) }),
    () => load({ model: folder, prefixCache: as(stray) }),
  ];
  for (const call of calls) expect(await thrown(call)).toMatchObject(rejected);
  if (typeof stray !== 'number')
    expect(await thrown(() => ops.add({ b: x, scale: as(stray) }))).toMatchObject(rejected);
  sequence.dispose();
});

test.each(strays.map(asName))('%s as options and ids of tokenizers and embeddings', async (_, stray) => {
  const { tokenizer } = model;
  const calls = [
    () => tokenizer.decode(as(stray)),
    () => model.embed({ tokens: [1] }, as(stray)),
    () => model.embed({ tokens: [1] }, { signal: as(stray) }),
    () => model.generate({ tokens: [1], signal: as(stray) }),
    () => model.generate({ tokens: [1], signal: as({ throwIfAborted: () => stray }) }),
  ];
  for (const call of calls) expect(await thrown(call)).toMatchObject(rejected);
  if (stray !== true) {
    expect(await thrown(() => load({ model: folder, deterministic: as(stray) }))).toMatchObject(rejected);
  }
  if (typeof stray === 'number') return;
  for (const tokens of [[stray], { length: 2 ** 31, 0: stray }]) {
    expect(await thrown(() => tokenizer.decode(as(tokens)))).toMatchObject(rejected);
  }
});

test('sequences of more rows or tokens than there can be', async () => {
  for (const [batch, length] of [
    [2 ** 30, 1],
    [2 ** 31, 0],
    [3, 2 ** 30],
    [-1, 1],
    [1.5, 1],
    [1, Number.NaN],
  ] as const) {
    expect(await thrown(() => ops.uniformSequences(batch, length))).toMatchObject({ code: 'ERR_ARGUMENT' });
  }
});

test('undefined as what layers and ops must be given', async () => {
  const none = as<never>(undefined);
  const calls = [
    () => t5RelativeBias([1, 2], none),
    () => new WindowedLinearAttention(none),
    () => new WindowedLinearAttention({ window: 1, featureMap: { name: 'identity' }, windowFactors: none }),
    () => ops.matmul(none),
    () => ops.rope(none),
    () => ops.addRmsNorm(none),
  ];
  for (const call of calls) expect(await thrown(call)).toMatchObject(rejected);
});
