// What linattn bench measures, and how it tells it.
import { writeFileSync } from 'node:fs';
import Table from 'cli-table3';
import { linattnError } from '../errors';
import { type DeviceName, defaultDevice, deviceOf, setThreads } from '../tensor/device';
import type { BenchFlags } from './bench';
import { type GpuReport, gpuTable, measureGpu } from './bench-gpu';
import { type GpuModelReport, measureGpuModel } from './bench-gpu-model';
import type { PrefillPart, PrefillReport } from './bench-gpu-prefill';
import { checkLengths, describeMechanisms, type MechanismReport, measureMechanisms } from './bench-mechanisms';
import { mechanismPlot } from './bench-mechanisms-plot';
import { type ContextReport, type ModelReport, measureContext, measureModel } from './bench-model';
import { layerProducts, linearAttentionCase, opCases } from './bench-ops';
import { type Case, measure, median, type Row, timeOnce, Yardstick } from './bench-timing';
import type { Context } from './context';
import { loadOptions } from './flags';
import { bytesText } from './output';
import { version } from './version';

interface Report {
  readonly machine: string;
  readonly ops?: readonly Row[];
  readonly gpu?: GpuReport;
  readonly gpuModel?: GpuModelReport;
  readonly layer?: LayerReport;
  readonly model?: ModelReport;
  readonly context?: ContextReport;
  readonly mechanisms?: MechanismReport;
}

/** Linear attention beside the products of its layer, 512 tokens. */
interface LayerReport {
  readonly linearAttentionMicroseconds: number;
  readonly productsMicroseconds: number;
  readonly ratio: number;
}

export async function run(flags: BenchFlags, context: Context): Promise<Report> {
  const { load, devices, readModelFolder, defaultModel } = context.library();
  const { signal } = context.interrupts;
  const runs = flags.quick ? 3 : 15;
  const machine = `linattn ${version}, Node ${process.version}, ${devices()[0]!.description}`;
  const say = (text: string) => {
    if (!flags.quiet && context.stderr.isTTY) context.stderr.write(`${text}\n`);
  };
  if (flags.mechanisms) return runMechanisms(flags, context, say);
  if (flags.device.startsWith('cuda')) return runOnGpu(flags, context, runs, say);
  if (flags.op === undefined) await readModelFolder(flags.model ?? defaultModel, flags); // before minutes of ops
  const yardstick = new Yardstick();
  try {
    const rows: Row[] = [];
    for (const make of flags.ops ? opCases : []) {
      const one = make();
      try {
        if (flags.op !== undefined && !one.name.includes(flags.op)) continue;
        say(one.name);
        rows.push(await measure(one, yardstick, runs, signal));
      } finally {
        one.dispose();
      }
    }
    if (flags.op !== undefined && rows.length === 0) throw noCase(flags.op);
    if (flags.op !== undefined) return { machine, ops: rows };
    const layer = flags.ops ? { layer: await measureLayer(runs) } : {};
    say('model');
    const open = () => load({ ...loadOptions(flags), signal, ...(flags.context && { maxSequences: 2 }) });
    const model = await measureModel(open, yardstick, runs, signal);
    if (!flags.context) return { machine, ops: rows, ...layer, model };
    say('context');
    const opened = await open();
    try {
      return { machine, ops: rows, ...layer, model, context: await measureContext(opened, {}, signal) };
    } finally {
      await opened.dispose();
    }
  } finally {
    yardstick.dispose();
  }
}

async function runMechanisms(flags: BenchFlags, context: Context, say: (text: string) => void): Promise<Report> {
  const { devices } = context.library();
  const { signal } = context.interrupts;
  const lengths = checkLengths(flags.lengths);
  if (flags.svg !== undefined) writePlot(flags.svg, ''); // before minutes of work, not after them
  if (flags.threads !== undefined) setThreads(flags.threads);
  const device = flags.device === 'auto' ? defaultDevice() : flags.device;
  const { name, description } = deviceOf(device);
  const host = devices()[0]!.description;
  const machine = `linattn ${version}, Node ${process.version}, ${name === 'cpu' ? '' : `${name}: ${description}, `}${host}`;
  const mechanisms = await measureMechanisms({ device, lengths, quick: flags.quick === true, signal }, say);
  if (flags.svg !== undefined) writePlot(flags.svg, mechanismPlot(mechanisms, machine));
  return { machine, mechanisms };
}

function writePlot(file: string, svg: string): void {
  try {
    writeFileSync(file, svg);
  } catch (cause) {
    throw linattnError('ERR_FILE', `bench: --svg ${file}: ${(cause as Error).message}`, { cause });
  }
}

const noCase = (op: string) => linattnError('ERR_ARGUMENT', `bench: no op case has ${JSON.stringify(op)} in its name`);

async function runOnGpu(
  flags: BenchFlags,
  context: Context,
  runs: number,
  say: (text: string) => void,
): Promise<Report> {
  const { load, devices } = context.library();
  const { signal } = context.interrupts;
  const device = flags.device as DeviceName;
  const { name, description } = deviceOf(device);
  const machine = `linattn ${version}, Node ${process.version}, ${name}: ${description}, ${devices()[0]!.description}`;
  const gpu = await measureGpu({ device, runs, ops: flags.ops, op: flags.op, signal }, say);
  if (flags.op !== undefined) return { machine, gpu };
  say('model');
  const open = () => load({ ...loadOptions(flags), signal });
  const { copyGbps, matmulTflops } = gpu;
  const gpuModel = await measureGpuModel(open, { device, copyGbps, matmulTflops, runs: flags.quick ? 3 : 5 }, signal);
  return { machine, gpu, gpuModel };
}

async function measureLayer(runs: number): Promise<LayerReport> {
  const cases: Case[] = [linearAttentionCase(512), ...layerProducts.map((make) => make())];
  const times = cases.map(() => [] as number[]);
  for (let run = -1; run < runs; run++) {
    for (const [i, one] of cases.entries()) {
      const time = (await timeOnce(one)) / one.repeat;
      if (run >= 0) times[i]!.push(time);
    }
  }
  for (const one of cases) one.dispose();
  const products = times[1]!.map((time, i) => time + times[2]![i]!);
  return {
    linearAttentionMicroseconds: 1000 * median(times[0]!),
    productsMicroseconds: 1000 * median(products),
    ratio: median(times[0]!.map((time, i) => time / products[i]!)),
  };
}

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

export function describe({ machine, ops, layer, model, context, gpu, gpuModel, mechanisms }: Report): string[] {
  const parts = [machine];
  if (mechanisms !== undefined) parts.push(...describeMechanisms(mechanisms));
  if (gpu !== undefined) parts.push(...describeGpu(gpu));
  if (gpuModel !== undefined) parts.push(...describeGpuModel(gpuModel));
  if (ops !== undefined && ops.length > 0) {
    const table = new Table({ head: ['op', 'time', 'rate', 'peak', 'share'], style: { head: [] } });
    for (const { name, microseconds, rate, ceiling, ceilingKind, share } of ops) {
      const unit = ceilingKind === 'read' ? 'GB/s' : 'GFLOP/s';
      const time = microseconds < 1000 ? `${microseconds.toFixed(0)} us` : `${(microseconds / 1000).toFixed(2)} ms`;
      table.push([name, time, `${rate.toFixed(1)} ${unit}`, ceiling.toFixed(0), percent(share)]);
    }
    parts.push(`${table.toString()}\nmedians of ${ops[0]!.runs}, each in turns with its peak: ${peaks}`);
  }
  if (layer !== undefined) {
    const { linearAttentionMicroseconds: ours, productsMicroseconds: products, ratio } = layer;
    parts.push(
      `linear attention of 512 tokens: ${ours.toFixed(0)} us; the products of its layer: ${products.toFixed(0)} us; ratio ${ratio.toFixed(2)}`,
    );
  }
  if (model !== undefined) {
    parts.push(
      `load ${(model.loadMs / 1000).toFixed(2)} s, with the first token ${(model.firstTokenMs / 1000).toFixed(2)} s; ` +
        `prefill ${model.prefillTokensPerSecond.toFixed(0)} tokens/s; decode ${model.decodeTokensPerSecond.toFixed(1)} tokens/s, ` +
        `which reads ${bytesText(model.weightBytes)} of weights a token: ${percent(model.decodeShare)} of the ${model.readGBps.toFixed(1)} GB/s that a read loop reaches; ` +
        `state ${bytesText(model.stateBytes)} a sequence, ${bytesText(model.kvBytesPerToken)} of keys and values a token`,
    );
  }
  if (context !== undefined) {
    const { short, long, shortMs, longMs, ratio, pairs } = context;
    parts.push(
      `512 tokens after ${short}: ${shortMs.toFixed(1)} ms, after ${long}: ${longMs.toFixed(1)} ms; median ratio of ${pairs} pairs ${ratio.toFixed(3)}`,
    );
  }
  return parts;
}

function describeGpu(gpu: GpuReport): string[] {
  const head = ['op', 'us, cold', 'us, warm', 'us, eager', 'GB/s', 'TFLOP/s', 'of its floor'];
  const table = new Table({ head, style: { head: [] } });
  table.push(...gpuTable(gpu));
  const limits = `copy of 1 GiB ${gpu.copyGbps.toFixed(0)} GB/s, bfloat16 product of 8192^3 ${gpu.matmulTflops.toFixed(0)} TFLOP/s`;
  return [
    limits,
    `${table.toString()}\nmedians of ${gpu.runs} by the device's clock; cold and warm from a recorded graph`,
  ];
}

const describeGpuModel = ({ loadMs, weightBytes, decode, prefill }: GpuModelReport): string[] => [
  `load ${(loadMs / 1000).toFixed(2)} s, ${bytesText(weightBytes)} of weights`,
  ...decode.map(
    ({ context, msPerToken, floorMs, share }) =>
      `decode after ${context}: ${msPerToken.toFixed(3)} ms a token, ${percent(share)} of its floor, ${floorMs.toFixed(3)} ms`,
  ),
  ...prefill.map(describePrefill),
];

function describePrefill(report: PrefillReport): string {
  const { tokens, firstTokenMs, deviceMs, tokensPerSecond, softmaxAttention, rest, ops } = report;
  const part = (name: string, { ms, tflop, tflops, share }: PrefillPart) =>
    `${name}: ${ms.toFixed(1)} ms for ${tflop.toFixed(1)} TFLOP, ${tflops.toFixed(0)} TFLOP/s, ${percent(share)} of the product's`;
  return [
    `prefill of ${tokens}: ${firstTokenMs.toFixed(1)} ms to the first token, ${deviceMs.toFixed(1)} ms on the device, ${tokensPerSecond.toFixed(0)} tokens/s`,
    ...(softmaxAttention ? [part('softmax attention', softmaxAttention)] : []),
    part(softmaxAttention ? 'all the rest' : 'all of it', rest),
    `ops: ${ops.map(({ name, calls, ms }) => `${name} ${calls} x ${((1000 * ms) / calls).toFixed(0)} us`).join(', ')}`,
  ].join('\n  ');
}

const peaks =
  'multiply-adds in registers, bfloat16 dot products in registers, or a read loop of all threads over 1 GiB';
