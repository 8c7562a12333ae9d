// How `linattn bench` measures: ours and the machine's peak in turns, medians of the pairs.

import { activation } from '../ops/activation';
import { convertInto } from '../ops/convert';
import { machinePeak, type PeakKind } from '../ops/machine-peak';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

/** What a case did in one run. */
export interface Work {
  readonly flops: number;
  readonly bytes: number;
}

export interface Case {
  readonly name: string;
  /** What the case is held against. */
  readonly ceiling: PeakKind;
  /** Of one call of `enqueue`. */
  readonly work: Work;
  /** Enqueues the case once and returns one of its outputs. */
  readonly enqueue: () => Tensor;
  /** Calls that are timed together, so that waiting costs little beside them. */
  readonly repeat: number;
  readonly dispose: () => void;
}

export interface Row {
  readonly name: string;
  /** Medians: of a call, of its rate (GFLOP/s, or GB/s where the ceiling is read), of the ceiling, of rate / ceiling. */
  readonly microseconds: number;
  readonly rate: number;
  readonly ceiling: number;
  readonly ceilingKind: PeakKind;
  readonly share: number;
  readonly runs: number;
}

/** Memory that is really there: 1 GiB that has been written, for the read loop. */
export class Yardstick {
  private readonly values: Tensor<'float32'>;

  constructor(gibibytes = 1) {
    const count = gibibytes * 2 ** 28;
    const piece = 2 ** 22;
    this.values = Tensor.zeros({ dtype: 'float32', shape: [count] });
    scope(() => {
      const ones = activation({ x: Tensor.zeros({ dtype: 'float32', shape: [piece] }), activation: 'sigmoid' });
      for (let at = 0; at < count; at += piece) this.fill(ones, at, piece);
    });
  }

  private fill(ones: Tensor<'float32'>, at: number, count: number): void {
    convertInto({ x: ones, into: this.values.view([count], at, 1) });
  }

  async measure(kind: PeakKind): Promise<number> {
    const out = kind === 'read' ? machinePeak(kind, { values: this.values }) : machinePeak(kind);
    const [peak] = await out.read();
    out.dispose();
    return peak!;
  }

  dispose(): void {
    this.values.dispose();
  }
}

/** Milliseconds that `repeat` calls of a case take, once it is warm. */
export async function timeOnce(one: Case): Promise<number> {
  const start = performance.now();
  const last = scope(() => {
    let out: Tensor | undefined;
    for (let i = 0; i < one.repeat; i++) out = one.enqueue();
    return out!;
  });
  await last.wait();
  const time = performance.now() - start;
  last.dispose();
  return time;
}

/** Ours, ceiling, ours, ceiling ... */
export async function measure(one: Case, yardstick: Yardstick, runs: number, signal: AbortSignal): Promise<Row> {
  await timeOnce(one);
  const times: number[] = [];
  const ceilings: number[] = [];
  const shares: number[] = [];
  const amount = one.repeat * (one.ceiling === 'read' ? one.work.bytes : one.work.flops);
  for (let run = 0; run < runs; run++) {
    signal.throwIfAborted();
    const time = await timeOnce(one);
    const ceiling = await yardstick.measure(one.ceiling);
    times.push(time);
    ceilings.push(ceiling);
    shares.push(amount / (time * 1e6) / ceiling);
  }
  const time = median(times);
  return {
    name: one.name,
    microseconds: (time * 1000) / one.repeat,
    rate: amount / (time * 1e6),
    ceiling: median(ceilings),
    ceilingKind: one.ceiling,
    share: median(shares),
    runs,
  };
}
