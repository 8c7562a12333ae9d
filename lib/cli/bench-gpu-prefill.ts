// Prefill on a GPU: as a consumer waits for it, and what each op takes of it, by the device's own clock.
import type { Model } from '../index';
import { linearAttentionCost } from '../ops/linear-attention';
import { type OpObserver, observeOps } from '../ops/op';
import { softmaxAttentionCost } from '../ops/softmax-attention';
import { type DeviceName, timed, timedNow } from '../tensor/device';
import type { Tensor } from '../tensor/tensor';
import { someTokens } from './bench-data';
import { median } from './bench-timing';

/** Wall time to the first token, what the device took for the prompt, and for softmax attention and all the rest of it. */
export interface PrefillReport {
  readonly tokens: number;
  readonly firstTokenMs: number;
  readonly deviceMs: number;
  readonly tokensPerSecond: number;
  /** Absent where the model has none. */
  readonly softmaxAttention?: PrefillPart;
  readonly rest: PrefillPart;
  /** Of a run with events around every op, the longest first. */
  readonly ops: readonly PrefillOp[];
}

/** `tflop` is the arithmetic of products and attention; `share`: of the rate of the product of 8192^3. */
export interface PrefillPart {
  readonly ms: number;
  readonly tflop: number;
  readonly tflops: number;
  readonly share: number;
}

export interface PrefillOp {
  readonly name: string;
  readonly calls: number;
  readonly ms: number;
  readonly tflop: number;
}

export async function measurePrefill(
  model: Model,
  options: { device: DeviceName; count: number; runs: number; matmulTflops: number; signal: AbortSignal },
): Promise<PrefillReport> {
  const { device, count, runs, matmulTflops, signal } = options;
  const read = (seed: number) => {
    const tokens = someTokens(count, model.info.vocabularySize, seed);
    return model.generate({ tokens, maxTokens: 1, temperature: 0, ignoreEos: true, signal }).result;
  };
  const waits: number[] = [];
  const works: number[] = [];
  for (let run = 0; run < runs; run++) {
    const work = await timed(device, async () => {
      const began = performance.now();
      await read(run);
      waits.push(performance.now() - began);
    });
    works.push(work);
  }
  const firstTokenMs = median(waits);
  const deviceMs = median(works);
  const ops = await timeOps(device, () => read(runs));
  const part = (ms: number, tflop: number): PrefillPart => {
    const tflops = (1000 * tflop) / ms;
    return { ms, tflop, tflops, share: tflops / matmulTflops };
  };
  const softmax = ops.find(({ name }) => name === 'softmaxAttention');
  const tflop = ops.reduce((sum, one) => sum + one.tflop, 0);
  return {
    tokens: count,
    firstTokenMs,
    deviceMs,
    tokensPerSecond: (1000 * count) / firstTokenMs,
    ...(softmax && { softmaxAttention: part(softmax.ms, softmax.tflop) }),
    rest: part(deviceMs - (softmax?.ms ?? 0), tflop - (softmax?.tflop ?? 0)),
    ops,
  };
}

/** Of what `read` has the device do for one sequence from its start. */
async function timeOps(device: DeviceName, read: () => Promise<unknown>): Promise<PrefillOp[]> {
  const flopsOf = flopCounter();
  const timing: { name: string; flops: number; ms: Promise<number> }[] = [];
  const stop = observeOps((name, values, enqueue) => {
    timing.push({ name, flops: flopsOf(name, values), ms: timedNow(device, enqueue) });
  });
  try {
    await read();
  } finally {
    stop();
  }
  const ops = new Map<string, PrefillOp>();
  for (const { name, flops, ms } of timing) {
    const before = ops.get(name) ?? { name, calls: 0, ms: 0, tflop: 0 };
    const { calls, tflop } = before;
    ops.set(name, { name, calls: calls + 1, ms: before.ms + (await ms), tflop: tflop + flops / 1e12 });
  }
  return [...ops.values()].toSorted((a, b) => b.ms - a.ms);
}

type Values = Parameters<OpObserver>[1];

/**
 * The operations of calls, in their order: of products, of both products of softmax attention, and of the recurrence of
 * linear attention; 0 of ops that only move and scale values.
 */
function flopCounter(): (name: string, values: Values) => number {
  const read = new Map<Tensor, number>(); // tokens that a layer has in its pages
  return (name, values) => {
    const size = (field: string, dim: number): number => (values[field] as Tensor | undefined)?.shape[dim] ?? 0;
    if (name === 'matmul' || name === 'groupedMatmul') return 2 * size('x', 1) * size('out', 0) * size('out', 1);
    if (name === 'linearAttention') {
      const heads = { Hq: size('q', 1), Hk: size('k', 1), Hv: size('v', 1) };
      const sizes = { N: 1, T: size('k', 0), ...heads, K: size('k', 2), V: size('v', 2), width: 2 };
      const rule = values.beta ? 'delta' : values.a ? 'lowRank' : 'additive';
      const decay = ([undefined, 'head', 'token', 'channel'] as const)[
        (values.logDecay as Tensor | undefined)?.shape.length ?? 0
      ];
      return linearAttentionCost({ ...sizes, rule, decay }).flops;
    }
    if (name === 'softmaxAttention') {
      const pages = values.pages as Tensor;
      const [tokens, position] = [size('q', 0), read.get(pages) ?? 0];
      read.set(pages, position + tokens);
      const heads = { heads: size('q', 1), kvHeads: size('k', 1), width: size('q', 2) };
      const [window, sinkTokens] = [values.window as number, values.sinkTokens as number];
      const sizes = { tokens, position, ...heads, window, sinkTokens };
      return 4 * heads.width * softmaxAttentionCost(sizes, { bytesPerValue: 2, bytesPerCached: 2 }).scores;
    }
    return 0;
  };
}
