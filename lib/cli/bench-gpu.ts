// `linattn bench --device cuda`: ops timed by the device's own clock (CUDA events), from a recorded graph and call by call,
// with cold and with warm caches, against what this GPU reaches in the same run: a copy of 1 GiB and a bfloat16 product of
// 8192 x 8192 x 8192 on normal numbers.
import { convertInto } from '../ops/convert';
import { matmul } from '../ops/matmul';
import { Weight } from '../ops/weight';
import { type DeviceName, deviceOf, fence, type Graph, timed } from '../tensor/device';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { fillWeight } from './bench-data';
import { type GpuCase, gpuCases, makeCase } from './bench-gpu-cases';
import { NormalNumbers } from './bench-normal';
import { median } from './bench-timing';

/** Microseconds of a call. */
export interface GpuRow {
  readonly name: string;
  readonly cold: number;
  readonly warm: number;
  readonly eager: number;
  readonly gbps: number;
  readonly tflops: number;
  /** The least time that its bytes and its operations take on this GPU, over the cold time. */
  readonly share: number;
}

export interface GpuReport {
  readonly copyGbps: number;
  readonly matmulTflops: number;
  readonly runs: number;
  readonly ops: readonly GpuRow[];
}

const warmCalls = 20;

/** More than any last-level cache of a GPU; written between cold runs. Its write also keeps the device busy meanwhile. */
class Flush {
  private readonly from: Tensor<'float32'>;
  private readonly to: Tensor<'float32'>;

  constructor(device: DeviceName) {
    const tensor = () => Tensor.zeros({ dtype: 'float32', shape: [2 ** 26], device });
    this.from = tensor();
    this.to = tensor();
  }

  run(): void {
    convertInto({ x: this.from, into: this.to });
  }

  dispose(): void {
    this.from.dispose();
    this.to.dispose();
  }
}

const drop = (one: GpuCase, calls: number): void => {
  for (let call = 0; call < calls; call++) scope(() => void one.enqueue(call));
};

export async function measureGpu(
  options: { device: DeviceName; runs: number; ops: boolean; op?: string | undefined; signal: AbortSignal },
  say: (text: string) => void,
): Promise<GpuReport> {
  const { device, runs, op, signal } = options;
  const cases = options.ops ? gpuCases : [];

  const flush = new Flush(device);
  const ops: GpuRow[] = [];
  try {
    const copyGbps = await copyRate(device, runs);
    const matmulTflops = await matmulRate(device, runs);
    for (const make of cases) {
      signal.throwIfAborted();
      const one = makeCase(make, device);
      try {
        if (op !== undefined && !one.name.includes(op)) continue;
        say(one.name);
        const times = await measureCase(one, device, flush, runs);
        const floor = Math.max(one.work.bytes / (copyGbps * 1e3), one.work.flops / (matmulTflops * 1e6));
        ops.push({
          name: one.name,
          ...times,
          gbps: one.work.bytes / (times.cold * 1e3),
          tflops: one.work.flops / (times.cold * 1e6),
          share: floor / times.cold,
        });
      } finally {
        one.dispose();
        await fence(device);
      }
    }
    return { copyGbps, matmulTflops, runs, ops };
  } finally {
    flush.dispose();
  }
}

async function measureCase(
  one: GpuCase,
  device: DeviceName,
  flush: Flush,
  runs: number,
): Promise<Pick<GpuRow, 'cold' | 'warm' | 'eager'>> {
  const { calls = 1 } = one;
  const several = Math.max(calls, warmCalls);
  drop(one, 1);
  await fence(device); // what is made at the first call is made
  const graphs = [calls, several].map((count) => deviceOf(device).capture(() => drop(one, count)));
  const [behindFlush, repeated] = graphs as [Graph, Graph];
  try {
    for (const each of graphs) for (let i = 0; i < 2; i++) each.replay(); // the second replay records the device's graph
    await fence(device);
    const times = { cold: [] as number[], warm: [] as number[], eager: [] as number[] };
    for (let run = 0; run < runs; run++) {
      const cold = async (enqueue: () => void) => {
        flush.run();
        return (1000 * (await timed(device, enqueue))) / calls;
      };
      times.cold.push(await cold(() => behindFlush.replay()));
      times.eager.push(await cold(() => drop(one, calls)));
      flush.run();
      behindFlush.replay();
      times.warm.push((1000 * (await timed(device, () => repeated.replay()))) / several);
    }
    return { cold: median(times.cold), warm: median(times.warm), eager: median(times.eager) };
  } finally {
    for (const each of graphs) each.dispose();
  }
}

async function copyRate(device: DeviceName, runs: number): Promise<number> {
  const values = 2 ** 28;
  const tensor = () => Tensor.zeros({ dtype: 'float32', shape: [values], device });
  const [x, into] = [tensor(), tensor()];
  const times: number[] = [];
  for (let run = -1; run < runs; run++) {
    const time = await timed(device, () => convertInto({ x, into }));
    if (run >= 0) times.push(time);
  }
  x.dispose();
  into.dispose();
  return (2 * 4 * values) / (median(times) * 1e6);
}

/** The highest rate that the other products are held against: of normal numbers, since zeros and small ones take less power. */
async function matmulRate(device: DeviceName, runs: number): Promise<number> {
  const [side, block] = [8192, 1024];
  const normals = new NormalNumbers();
  const some = () => Tensor.from(normals.array(block * side), { dtype: 'float32', shape: [block, side], device });
  const weight = fillWeight(Weight.zeros([side, side], 'bfloat16', { device }), some());
  const x = Tensor.zeros({ dtype: 'bfloat16', shape: [side, side], device });
  scope(() => {
    const rows = some();
    for (let at = 0; at < side; at += block) convertInto({ x: rows, into: x.view([block, side], at * side, side) });
  });
  const times: number[] = [];
  for (let run = -2; run < runs; run++) {
    const time = await timed(device, () => scope(() => void matmul({ x, weight })));
    if (run >= 0) times.push(time);
  }
  x.dispose();
  weight.dispose();
  return (2 * side ** 3) / (median(times) * 1e9);
}

/** The cases' table, by name. */
export const gpuTable = ({ ops }: GpuReport): string[][] =>
  ops.map(({ name, cold, warm, eager, gbps, tflops, share }) => [
    name,
    ...[cold, warm, eager].map((time) => time.toFixed(time < 100 ? 1 : 0)),
    gbps.toFixed(0),
    tflops.toFixed(1),
    `${(100 * share).toFixed(0)} %`,
  ]);
