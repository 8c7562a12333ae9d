// Every exported op, with each of its arguments in turn replaced by what the types forbid: the error is typed, and names
// the op, the argument and what came.
import * as ops from '../../lib/ops';
import { type DType, newArray } from '../../lib/tensor/dtype';
import { Tensor } from '../../lib/tensor/tensor';
import { type Call, describeArguments } from '../support/wrong-arguments';

const tensor = <D extends DType>(dtype: D, ...shape: number[]): Tensor<D> => {
  const count = shape.reduce((product, size) => product * size, 1);
  return Tensor.from(newArray(dtype, count), { dtype, shape });
};
const f = (...shape: number[]) => tensor('float32', ...shape);
const i = (...shape: number[]) => tensor('int32', ...shape);
const weight = (N: number, K: number) => ops.weightFrom(f(N, K), 'float32');
const two = () => ops.sequences([1, 1]); // T = N = 2
const draw = { directions: 8, width: 8, seed: 1 };

/** `op`: the op that runs, where it has another name. */
const calls: Readonly<Record<string, Call & { readonly op?: string }>> = {
  activation: { args: () => [{ x: f(2, 8), activation: 'silu', scale: 1 }], optional: ['scale'] },
  add: { args: () => [{ a: f(2, 2, 8), b: f(2, 2, 8), scale: 1 }], optional: ['a', 'scale'] },
  addRmsNorm: {
    op: 'rmsNorm',
    args: () => [{ x: f(2, 8), weight: f(8), residual: f(2, 8), eps: 1e-6, branchScale: 1 }],
    optional: ['branchScale'],
  },
  beginStep: { args: () => [i(2), i(3), i(2, 16), true] },
  causalConv: {
    args: () => [
      {
        x: f(2, 8),
        weight: f(8, 4),
        bias: f(8),
        state: f(2, 8, 3),
        sequences: two(),
        activation: 'silu',
        l2Norm: { heads: 1, width: 8, eps: 1e-6 },
      },
    ],
    optional: ['bias', 'state', 'activation', 'l2Norm'],
  },
  commitStep: {
    args: () => [i(2), i(2, 16), { offsets: i(3), after: f(1) }],
    optional: [2],
  },
  convert: { args: () => [{ x: f(2, 8), dtype: 'bfloat16' }] },
  convertInto: { op: 'convert', args: () => [{ x: f(2, 8), into: f(2, 8) }] },
  copySlots: { args: () => [{ pool: f(2, 8), from: i(0), to: i(0) }] },
  countNan: { args: () => [f(2, 8)] },
  deltaGates: {
    args: () => [{ a: f(2, 2), b: f(2, 2), aLog: f(2), dtBias: f(2), betaScale: 1 }],
    optional: ['betaScale'],
  },
  divide: { args: () => [{ x: f(2, 2, 8), divisor: f(2, 2), floor: f(2, 2), eps: 0 }], optional: ['eps'] },
  drawFavorDirections: {
    args: () => [{ ...draw, orthogonal: true, norms: 'gaussian', version: 1 }],
    optional: ['orthogonal', 'norms', 'version'],
  },
  embedding: { args: () => [{ ids: i(2), weight: weight(32, 8) }] },
  encodeSampling: {
    op: 'sampling',
    args: () => [{ temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0, restricted: false }],
    optional: ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed', 'restricted'],
  },
  endStep: { args: () => [i(2), i(2), i(2, 1), i(2, 16), true] },
  favorFeatures: {
    args: () => [
      {
        x: f(2, 2, 8),
        projection: ops.FavorProjection.draw(draw),
        maximum: 'running',
        keyMax: f(2, 2),
        decay: f(2),
        sequences: two(),
        eps: 0,
      },
    ],
    optional: ['keyMax', 'decay', 'eps'],
  },
  featureCount: { args: () => ['dpfp', 8, 1], optional: [2] },
  featureMap: {
    args: () => [{ x: f(2, 2, 8), name: 'softmax', scale: 1, floor: 0, order: 1 }],
    optional: ['scale', 'floor', 'order'],
  },
  gatedActivation: {
    args: () => [{ x: f(2, 8), gate: f(2, 8), base: f(2, 8), activation: 'silu' }],
    optional: ['gate', 'base'],
  },
  gatherRows: { args: () => [{ x: f(2, 8), rows: i(2) }] },
  groupedMatmul: { args: () => [{ x: f(2, 8), ids: i(2, 1), weight: weight(64, 8), experts: 2 }] },
  l2Norm: { args: () => [{ x: f(2, 2, 8), eps: 1e-6, scale: 1 }], optional: ['scale'] },
  layerNorm: {
    args: () => [{ x: f(2, 8), weight: f(8), bias: f(8), eps: 1e-6, groupSize: 8 }],
    optional: ['bias', 'groupSize'],
  },
  linearAttention: {
    args: () => [
      {
        q: f(2, 2, 8),
        k: f(2, 2, 8),
        v: f(2, 2, 8),
        rule: { name: 'delta', beta: f(2, 2) },
        decay: { per: 'token', g: f(2, 2) },
        scale: 1,
        state: f(2, 2, 8, 8),
        sequences: two(),
        checkpoints: { every: 64, slots: i(0) },
      },
    ],
    optional: ['q', 'decay', 'scale', 'state', 'checkpoints'],
  },
  machinePeak: {
    args: () => ['read', { values: f(64), device: 'cpu' }],
    optional: ['device'],
  },
  markSeen: {
    args: () => [{ seen: i(2, 1), rows: i(2), offsets: i(3), tokens: i(2), vocab: 32, clear: false }],
    optional: ['clear'],
  },
  matmul: { args: () => [{ x: f(2, 8), weight: weight(32, 8), bias: f(32) }], optional: ['bias'] },
  mlstmGates: {
    args: () => [
      { x: f(2, 4), bias: f(4), maximum: f(2, 2), sequences: two(), cap: 15, scale: 1, forget: 'exponential' },
    ],
    optional: ['maximum', 'cap', 'scale', 'forget'],
  },
  packWeight: { args: () => [{ source: f(32, 8), weight: weight(32, 8), row: 0 }], optional: ['row'] },
  rmsNorm: {
    args: () => [
      {
        x: f(2, 8),
        weight: f(8),
        gate: f(2, 8),
        eps: 1e-6,
        zeroCentred: true,
        groupSize: 8,
        gateOrder: 'after',
        gateActivation: 'silu',
      },
    ],
    optional: ['gate', 'zeroCentred', 'groupSize', 'gateOrder', 'gateActivation'],
  },
  rope: { args: () => [{ x: f(2, 2, 8), inverseFrequencies: f(4), sequences: two(), pairing: 'half' }] },
  ropeInverseFrequencies: { args: () => [1e4, 8] },
  route: {
    args: () => [{ logits: f(2, 8), bias: f(8), count: 2, score: 'softmax', renormalise: true, scale: 1 }],
    optional: ['bias', 'scale'],
  },
  rwkvKeys: {
    args: () => [
      { r: f(2, 2, 8), k: f(2, 2, 8), a: f(2, 2, 8), keyScale: f(2, 8), keyMix: f(2, 8), bonusWeight: f(2, 8) },
    ],
  },
  sample: {
    args: () => [
      {
        logits: f(2, 32),
        rows: i(2),
        positions: i(2),
        params: f(2, 8),
        intParams: i(2, 8),
        seen: i(2, 1),
        allowed: i(2, 1),
      },
    ],
    optional: ['seen', 'allowed'],
  },
  sequences: {
    args: () => [[1, 1], { readSlots: [0, 1], writeSlots: [0, 1], positions: [0, 0], device: 'cpu' }],
    optional: [1, 'readSlots', 'writeSlots', 'positions', 'device'],
  },
  softmaxAttention: {
    args: () => [
      {
        q: f(2, 2, 8),
        k: f(2, 1, 8),
        v: f(2, 1, 8),
        pages: f(2, 2, 4, 1, 8),
        pageTable: i(2, 1),
        tableRows: i(2),
        sequences: two(),
        scale: 1,
        window: 0,
        sinkTokens: 0,
        sinks: f(2),
        alibiSlopes: f(2),
        relativeBias: f(2, 4),
        rowStatistics: true,
      },
    ],
    optional: ['window', 'sinkTokens', 'sinks', 'alibiSlopes', 'relativeBias', 'rowStatistics'],
  },
  stepGates: {
    op: 'deltaGates',
    args: () => [{ a: f(2, 2), aLog: f(2), dtBias: f(2), min: 0, max: 1 }],
    optional: ['min', 'max'],
  },
  uniformSequences: { args: () => [2, 1, 'cpu'], optional: [2] },
  weightFrom: { op: 'packWeight', args: () => [f(32, 8), 'int8', { group: 32 }], optional: [2, 'group'] },
  weightedSum: { args: () => [{ x: f(4, 8), weights: f(2, 2), base: f(2, 8) }], optional: ['base'] },
};

/** Functions that are not for tensors of users: oracles, costs, and what the library's own folders share. */
const others = /(Reference|Cost)$|^(activationNumber|converted|packedSequences|paddedWidth|tokenWords)$/;

const functions = ops as unknown as Record<string, (...args: unknown[]) => unknown>;

test('every op is in the table', () => {
  const exported = Object.keys(ops).filter((name) => typeof functions[name] === 'function' && /^[a-z]/.test(name));
  expect(exported.filter((name) => !others.test(name)).sort()).toEqual(Object.keys(calls).sort());
});

describe.each(Object.entries(calls))('%s', (name, call) => {
  describeArguments(new RegExp(`^(${call.op ?? name}|${name}|device|Weight|Sequences): `), call, functions[name]!);
});
