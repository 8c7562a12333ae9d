// `linattn bench --mechanisms`: what each mechanism makes of softmax attention, and what it costs, over lengths.
import Table from 'cli-table3';
import { linattnError } from '../errors';
import type { Hidden } from '../layers/layer';
import { convert } from '../ops/convert';
import { type DeviceName, fence, timed } from '../tensor/device';
import { scope } from '../tensor/scope';
import { mechanismCases, type Reader, type ReaderSizes, softmaxName } from './bench-mechanisms-cases';
import { DriftingText, type MechanismDType, type Tokens } from './bench-mechanisms-data';
import { median } from './bench-timing';

export interface MechanismRow {
  readonly name: string;
  readonly about: string;
  /** By length. Relative error of the last 128 outputs against softmax's; null where it says nothing. */
  readonly error: readonly (number | null)[];
  /** Nanoseconds a token: of reading so many, and of the one after them. */
  readonly prefill: readonly number[];
  readonly decode: readonly number[];
  /** Tokens from which it costs less than softmax; null: nowhere among the lengths. */
  readonly crossover: { readonly prefill: number | null; readonly decode: number | null };
}

export interface MechanismReport {
  readonly dtype: MechanismDType;
  /** Of what is timed. */
  readonly heads: number;
  readonly width: number;
  readonly sliceTokens: number;
  readonly lengths: readonly number[];
  readonly rows: readonly MechanismRow[];
}

export interface MechanismOptions {
  readonly device: DeviceName;
  readonly lengths: readonly number[];
  readonly quick: boolean;
  readonly signal: AbortSignal;
}

const width = 64;
/** Of the sequence that is compared: both heads have a topic of their own. */
const comparedHeads = 2;
const comparedTokens = 128;
/** Prefill of a length is timed at so many slices, evenly spaced: what a slice costs grows linearly at most. */
const places = 4;
const decodeCalls = 20;
export const lengthStep = 1024;

export async function measureMechanisms(
  options: MechanismOptions,
  say: (text: string) => void,
): Promise<MechanismReport> {
  const { device, lengths, signal } = options;
  const onCpu = device === 'cpu';
  const dtype = onCpu ? 'float32' : 'bfloat16';
  const heads = onCpu ? 4 : 16;
  const sliceTokens = onCpu ? 512 : 4096;
  const capacity = lengths.at(-1)! + decodeCalls;
  const sizes: ReaderSizes = { device, dtype, heads, width, capacity, sliceTokens };
  say('errors');
  const errors = await measureErrors({ ...sizes, heads: comparedHeads }, lengths, signal);
  const times: { prefill: number[]; decode: number[] }[] = [];
  for (const { name, open } of mechanismCases) {
    say(name);
    const reader = open(sizes);
    try {
      times.push(await measureTimes(reader, sizes, options));
    } finally {
      reader.dispose();
      await fence(device);
    }
  }
  const exact = times[mechanismCases.findIndex(({ name }) => name === softmaxName)]!;
  const rows = mechanismCases.map(({ name, about }, i): MechanismRow => {
    const time = times[i]!;
    const from = (kind: 'prefill' | 'decode') =>
      name === softmaxName ? null : crossover(lengths, time[kind], exact[kind]);
    return { name, about, error: errors[i]!, ...time, crossover: { prefill: from('prefill'), decode: from('decode') } };
  });
  return { dtype, heads, width, sliceTokens, lengths, rows };
}

/** Where `ours` falls below `theirs` for good, on straight lines between the logarithms. */
export function crossover(
  lengths: readonly number[],
  ours: readonly number[],
  theirs: readonly number[],
): number | null {
  const above = ours.map((time, i) => Math.log(time / theirs[i]!));
  if (above.at(-1)! >= 0) return null;
  const last = above.findLastIndex((ratio) => ratio >= 0);
  if (last < 0) return lengths[0]!;
  const share = above[last]! / (above[last]! - above[last + 1]!);
  return Math.round(lengths[last]! * (lengths[last + 1]! / lengths[last]!) ** share);
}

/** By mechanism and length. All read the same text, slice by slice. */
async function measureErrors(
  sizes: ReaderSizes,
  lengths: readonly number[],
  signal: AbortSignal,
): Promise<(number | null)[][]> {
  const { device, dtype, heads, sliceTokens } = sizes;
  const compared = mechanismCases.filter(({ approximates }) => approximates);
  const readers = compared.map(({ open }) => open(sizes));
  const errors = compared.map(() => [] as number[]);
  const text = new DriftingText(heads, width);
  try {
    let at = 0;
    for (const length of lengths) {
      while (at < length - comparedTokens) {
        signal.throwIfAborted();
        const count = Math.min(sliceTokens, length - comparedTokens - at);
        scope(() => {
          const tokens = text.next(count, device, dtype);
          for (const reader of readers) reader.skip(tokens);
        });
        await fence(device); // what waits holds memory
        at += count;
      }
      const outs = scope(() => {
        const tokens = text.next(comparedTokens, device, dtype);
        return readers.map((reader) => plain(reader.read(tokens)));
      });
      at = length;
      const values = await Promise.all(outs.map((out) => out.read()));
      for (const out of outs) out.dispose();
      const exact = values[compared.findIndex(({ name }) => name === softmaxName)]!;
      values.forEach((approximate, i) => void errors[i]!.push(relativeError(approximate, exact)));
    }
  } finally {
    for (const reader of readers) reader.dispose();
  }
  return mechanismCases.map((one) => errors[compared.indexOf(one)] ?? lengths.map(() => null));
}

const plain = (x: Hidden) => convert({ x, dtype: 'float32' });

function relativeError(ours: Float32Array, exact: Float32Array): number {
  let [difference, size] = [0, 0];
  for (const [i, value] of exact.entries()) {
    difference += (ours[i]! - value) ** 2;
    size += value * value;
  }
  return Math.sqrt(difference / size);
}

async function measureTimes(
  reader: Reader,
  sizes: ReaderSizes,
  { lengths, quick, signal }: MechanismOptions,
): Promise<{ prefill: number[]; decode: number[] }> {
  const { device, dtype, heads, sliceTokens } = sizes;
  const text = new DriftingText(heads, width);
  const tokens = (count: number) => scope(() => text.next(count, device, dtype));
  const read = (at: number, x: Tokens, calls = 1) => {
    reader.seek(at);
    for (let call = 0; call < calls; call++) scope(() => void reader.read(x));
  };
  const prefill: number[] = [];
  const decode: number[] = [];
  const one = tokens(1);
  let slice = tokens(Math.min(sliceTokens, lengths[0]!));
  for (const length of lengths) {
    const count = Math.min(sliceTokens, length);
    if (slice.q.shape[0] !== count) {
      free(slice);
      slice = tokens(count);
    }
    const starts = evenly(length, count);
    read(starts[0]!, slice); // what is made at the first call is made
    const times = await repeated(quick, signal, async () => {
      let sum = 0;
      for (const start of starts) sum += await timed(device, () => read(start, slice));
      return sum / starts.length / count;
    });
    prefill.push(times * 1e6);
    read(length, one);
    const step = () => timed(device, () => read(length, one, decodeCalls));
    decode.push(((await repeated(quick, signal, step)) / decodeCalls) * 1e6);
  }
  free(one);
  free(slice);
  return { prefill, decode };
}

const free = (tokens: Tokens): void => Object.values(tokens).forEach((tensor: Hidden) => void tensor.dispose());

/** Starts of slices of `count` tokens whose middles are evenly spaced; multiples of 256. */
export function evenly(length: number, count: number): number[] {
  const many = Math.min(places, length / count);
  return Array.from({ length: many }, (_, i) => {
    const start = ((i + 0.5) * length) / many - count / 2;
    return Math.round(start / 256) * 256;
  });
}

/** The median of as many runs as half a second holds, of at least one and at most 15 (quick: 3). */
async function repeated(quick: boolean, signal: AbortSignal, run: () => Promise<number>): Promise<number> {
  const times: number[] = [];
  const start = performance.now();
  do {
    signal.throwIfAborted();
    times.push(await run());
  } while (times.length < (quick ? 3 : 15) && performance.now() - start < 500);
  return median(times);
}

/** They must be ascending multiples of 1024. @throws LinattnError ERR_ARGUMENT */
export function checkLengths(lengths: readonly number[]): readonly number[] {
  const wrong = lengths.find((length, i) => length % lengthStep !== 0 || length <= (lengths[i - 1] ?? 0));
  if (lengths.length > 0 && wrong === undefined) return lengths;
  throw linattnError(
    'ERR_ARGUMENT',
    `bench: --lengths must be ascending multiples of ${lengthStep}, got ${lengths.join(',') || 'none'}`,
  );
}

/** With k and M of 1024 where the number is a multiple of it, else of 1000. */
export const lengthText = (tokens: number): string => {
  const thousand = tokens % 1024 === 0 ? 1024 : 1000;
  if (tokens < thousand) return String(tokens);
  const short = (value: number) => Number(value.toFixed(value < 10 ? 1 : 0));
  const thousands = tokens / thousand;
  return thousands < thousand ? `${short(thousands)}k` : `${short(thousands / thousand)}M`;
};

const timeText = (nanoseconds: number): string =>
  nanoseconds < 1000 ? `${nanoseconds.toPrecision(3)} ns` : `${Number((nanoseconds / 1000).toPrecision(3))} us`;

export const crossoverText = (tokens: number | null, lengths: readonly number[]): string =>
  tokens === null ? 'never here' : tokens === lengths[0] ? `up to ${lengthText(tokens)}` : lengthText(tokens);

/** Three tables: error, prefill and decode by length; each row of the last two ends where it begins to pay. */
export function mechanismTables({
  lengths,
  rows,
}: MechanismReport): { title: string; head: string[]; rows: string[][] }[] {
  const head = ['mechanism', ...lengths.map(lengthText)];
  const timeRows = (kind: 'prefill' | 'decode') =>
    rows.map(({ name, [kind]: times, crossover: from }) => [
      name,
      ...times.map(timeText),
      name === softmaxName ? '' : crossoverText(from[kind], lengths),
    ]);
  return [
    {
      title: 'relative error against softmax attention, last 128 tokens',
      head,
      rows: rows.map(({ name, error }) => [
        name,
        ...error.map((value) => (value === null ? 'not one' : value === 0 ? '0' : value.toPrecision(2))),
      ]),
    },
    { title: 'prefill, time a token', head: [...head, 'below softmax from'], rows: timeRows('prefill') },
    { title: 'decode, time of the next token', head: [...head, 'below softmax from'], rows: timeRows('decode') },
  ];
}

export function describeMechanisms(report: MechanismReport): string[] {
  const { dtype, heads, width: D, sliceTokens, rows } = report;
  const tables = mechanismTables(report).map(({ title, head, rows: cells }) => {
    const table = new Table({ head, style: { head: [] } });
    table.push(...cells);
    return `${title}\n${table.toString()}`;
  });
  const notes = rows.map(({ name, about }) => `${name}: ${about}`).join('\n');
  return [...tables, `${heads} heads of ${D}, ${dtype}, slices of up to ${sliceTokens} tokens\n${notes}`];
}
