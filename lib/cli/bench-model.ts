// The whole-model cases of `linattn bench`: load, prefill, decode against the memory's speed, and the context law.
import type { Model } from '../index';
import { devices, fence } from '../tensor/device';
import { someTokens } from './bench-data';
import { median, type Yardstick } from './bench-timing';

export interface ModelReport {
  readonly loadMs: number;
  readonly firstTokenMs: number;
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
  /** Bytes of weights that a decode step reads, and the share of the read loop that this makes. */
  readonly weightBytes: number;
  readonly decodeShare: number;
  readonly readGBps: number;
  readonly stateBytes: number;
  readonly kvBytesPerToken: number;
}

async function usedBytes(): Promise<number> {
  await fence('cpu');
  return devices()[0]!.memory().used;
}

export async function measureModel(
  open: () => Promise<Model>,
  yardstick: Yardstick,
  runs: number,
  signal: AbortSignal,
): Promise<ModelReport> {
  const before = await usedBytes();
  let start = performance.now();
  const model = await open();
  const loadMs = performance.now() - start;
  try {
    const weightBytes = (await usedBytes()) - before;
    const session = model.createSession();
    const { vocabularySize, stateBytes, kvBytesPerToken } = model.info;
    await session.generate({ tokens: [1], maxTokens: 1, ignoreEos: true, signal }).result;
    const firstTokenMs = performance.now() - start;
    const rates: number[] = [];
    const reads: number[] = [];
    const shares: number[] = [];
    for (let run = 0; run < runs; run++) {
      const { usage } = await session.generate({ maxTokens: 9, temperature: 0, ignoreEos: true, signal }).result;
      const read = await yardstick.measure('read');
      rates.push(usage.tokensPerSecond);
      reads.push(read);
      shares.push((usage.tokensPerSecond * weightBytes) / (read * 1e9));
    }
    const prompt = someTokens(1024, vocabularySize);
    start = performance.now();
    await session.prefill({ tokens: prompt }, { signal });
    const prefillTokensPerSecond = (prompt.length * 1000) / (performance.now() - start);
    return {
      loadMs,
      firstTokenMs,
      prefillTokensPerSecond,
      decodeTokensPerSecond: median(rates),
      weightBytes,
      decodeShare: median(shares),
      readGBps: median(reads),
      stateBytes,
      kvBytesPerToken,
    };
  } finally {
    await model.dispose();
  }
}

export interface ContextReport {
  readonly short: number;
  readonly long: number;
  readonly pairs: number;
  readonly shortMs: number;
  readonly longMs: number;
  /** Median of long / short, pair by pair. */
  readonly ratio: number;
}

/** One slice of 512 tokens after a short and after a long context, in turns, each time from the same checkpoint. */
export async function measureContext(
  model: Model,
  { short = 2000, long = 100_000, pairs = 31 }: { short?: number; long?: number; pairs?: number },
  signal: AbortSignal,
): Promise<ContextReport> {
  const vocabulary = model.info.vocabularySize;
  const sides = [];
  for (const length of [short, long]) {
    const session = model.createSession();
    const base = someTokens(length, vocabulary);
    await session.prefill({ tokens: base }, { signal });
    sides.push({ session, base, times: [] as number[] });
  }
  for (let pair = -1; pair < pairs; pair++) {
    for (const side of sides) {
      const slice = someTokens(512, vocabulary, 12345);
      slice[0] = (pair + 2) % vocabulary; // differs from the last one, so that it is read again
      const tokens = new Int32Array(side.base.length + 512);
      tokens.set(side.base);
      tokens.set(slice, side.base.length);
      const { prefillMs, cachedTokens } = await side.session.prefill({ tokens }, { signal });
      if (cachedTokens !== side.base.length) throw new Error(`read ${tokens.length - cachedTokens} tokens, not 512`);
      if (pair >= 0) side.times.push(prefillMs);
    }
  }
  for (const { session } of sides) await session.dispose();
  const [first, second] = sides as [(typeof sides)[0], (typeof sides)[0]];
  const ratios = second.times.map((time, i) => time / first.times[i]!);
  return { short, long, pairs, shortMs: median(first.times), longMs: median(second.times), ratio: median(ratios) };
}
