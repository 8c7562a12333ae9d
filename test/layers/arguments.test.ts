// What the public layers are called with, each argument in turn replaced by what the types forbid.
import {
  alibiSlopes,
  BlockCausalLinformer,
  LinearAttention,
  Linformer,
  lightningDecays,
  ops,
  Tensor,
  t5RelativeBias,
  WindowedLinearAttention,
} from '../../lib/index';
import { type Call, describeArguments } from '../support/wrong-arguments';

const f = (...shape: number[]) => Tensor.zeros({ dtype: 'float32', shape });
const qkv = () => ({ q: f(2, 1, 8), k: f(2, 1, 8), v: f(2, 1, 8) });
const two = () => ops.sequences([1, 1]);
const sizes = { slots: 2, heads: 1, keyWidth: 8, valueWidth: 8 };

const plain = new LinearAttention();
const decayed = new LinearAttention({ decay: { per: 'token' }, rule: 'delta' });
const lowRank = new LinearAttention({ rule: 'lowRank' });
const linformer = new Linformer({ keyProjection: f(4, 1, 8) });
const blocks = new BlockCausalLinformer({ keyProjection: f(4, 1, 8) });
const windowed = new WindowedLinearAttention({ window: 2, featureMap: { name: 'relu' }, windowFactors: [1] });

const calls: Readonly<Record<string, Call & { readonly run: (...args: never[]) => unknown }>> = {
  'new LinearAttention': {
    run: (options) => new LinearAttention(options),
    args: () => [{ normalize: { eps: 0 }, featureMap: { name: 'relu' } }],
    optional: [0, 'normalize', 'featureMap'],
  },
  'LinearAttention.createState': { run: (...a) => plain.createState(...(a as [never])), args: () => [{ ...sizes }] },
  'LinearAttention.forward': {
    run: (...a) => plain.forward(...(a as [never])),
    args: () => [{ ...qkv(), sequences: two() }, plain.createState(sizes)],
    optional: [1],
  },
  'LinearAttention.forward of decays and betas': {
    run: (...a) => decayed.forward(...(a as [never])),
    args: () => [{ ...qkv(), decay: f(2, 1), beta: f(2, 1), sequences: two() }],
  },
  'LinearAttention.forward of rank one': {
    run: (...a) => lowRank.forward(...(a as [never])),
    args: () => [{ ...qkv(), a: f(2, 1, 8), b: f(2, 1, 8), sequences: two() }],
  },
  'LinearAttention.remember': {
    run: (...a) => plain.remember(...(a as unknown as [never, never])),
    args: () => [{ k: f(2, 1, 8), v: f(2, 1, 8), sequences: two() }, plain.createState(sizes)],
  },
  'LinearAttention.recall': {
    run: (...a) => plain.recall(...(a as unknown as [never, never])),
    args: () => [{ q: f(2, 1, 8), sequences: two() }, plain.createState(sizes)],
  },
  'LinearAttention.bidirectional': {
    run: (...a) => plain.bidirectional(...(a as [never])),
    args: () => [{ ...qkv(), sequences: two() }],
  },
  'new Linformer': {
    run: (options) => new Linformer(options),
    args: () => [{ keyProjection: f(4, 1, 8), valueProjection: f(4, 1, 8), scale: 1 }],
    optional: ['valueProjection', 'scale'],
  },
  'Linformer.createMemory': { run: (...a) => linformer.createMemory(...(a as [never])), args: () => [{ ...sizes }] },
  'Linformer.forward': {
    run: (...a) => linformer.forward(...(a as [never])),
    args: () => [{ ...qkv(), lengths: [1, 1] }],
  },
  'Linformer.remember': {
    run: (...a) => linformer.remember(...(a as unknown as [never, never])),
    args: () => [
      { k: f(2, 1, 8), v: f(2, 1, 8), lengths: [1, 1], slots: [0, 1], positions: [0, 0] },
      linformer.createMemory(sizes),
    ],
    optional: ['slots', 'positions'],
  },
  'Linformer.recall': {
    run: (...a) => linformer.recall(...(a as unknown as [never, never])),
    args: () => [{ q: f(2, 1, 8), lengths: [1, 1], slots: [0, 1] }, linformer.createMemory(sizes)],
    optional: ['slots'],
  },
  'new BlockCausalLinformer': {
    run: (options) => new BlockCausalLinformer(options),
    args: () => [{ keyProjection: f(4, 1, 8), valueProjection: f(4, 1, 8), scale: 1 }],
    optional: ['valueProjection', 'scale'],
  },
  'BlockCausalLinformer.createSequence': {
    run: (...a) => blocks.createSequence(...(a as [never])),
    args: () => [{ capacity: 8, heads: 1, width: 8, dtype: 'float32' }],
    optional: ['dtype'],
  },
  'BlockCausalLinformer.forward': {
    run: (...a) => blocks.forward(...(a as unknown as [never, never])),
    args: () => [qkv(), blocks.createSequence({ capacity: 8, heads: 1, width: 8 })],
  },
  'new WindowedLinearAttention': {
    run: (options) => new WindowedLinearAttention(options),
    args: () => [{ window: 2, featureMap: { name: 'relu' }, windowFactors: [1], scale: 1, relativeBias: f(1, 4) }],
    optional: ['scale', 'relativeBias'],
  },
  'WindowedLinearAttention.createSequence': {
    run: (...a) => windowed.createSequence(...(a as [never])),
    args: () => [{ heads: 1, width: 8 }],
  },
  'WindowedLinearAttention.forward': {
    run: (...a) => windowed.forward(...(a as unknown as [never, never])),
    args: () => [qkv(), windowed.createSequence({ heads: 1, width: 8 })],
  },
  lightningDecays: {
    run: (...a) => lightningDecays(...(a as unknown as Parameters<typeof lightningDecays>)),
    args: () => ['minimax', { heads: 2, layer: 0, layers: 2 }],
  },
  alibiSlopes: { run: alibiSlopes, args: () => [4] },
  t5RelativeBias: {
    run: (...a) => t5RelativeBias(...(a as unknown as Parameters<typeof t5RelativeBias>)),
    args: () => [Float32Array.of(1, 2), { buckets: 2, maxDistance: 3 }],
  },
};

describe.each(Object.entries(calls))('%s', (name, call) => {
  const owner = /^(?:new )?(\w+)/.exec(name)![1]!;
  describeArguments(new RegExp(`^${owner}: `), call, call.run as (...args: unknown[]) => unknown);
});
