// The whole model on a GPU: decode as a consumer of the stream sees it, and prefill, against the device's own limits.
import type { Model } from '../index';
import { type DeviceName, deviceOf, fence, timed } from '../tensor/device';
import { someTokens } from './bench-data';
import { median } from './bench-timing';

export interface GpuModelReport {
  readonly loadMs: number;
  readonly weightBytes: number;
  readonly stateBytes: number;
  readonly kvBytesPerToken: number;
  readonly decode: readonly DecodeReport[];
  readonly prefill: readonly PrefillReport[];
}

/** Milliseconds a token between the 65th and the last of 576, and the share of them that the memory needs. */
export interface DecodeReport {
  readonly context: number;
  readonly msPerToken: number;
  readonly floorMs: number;
  readonly share: number;
}

/** Wall time to the first token, and what the device took for the prompt. */
export interface PrefillReport {
  readonly tokens: number;
  readonly firstTokenMs: number;
  readonly deviceMs: number;
  readonly tokensPerSecond: number;
}

const [decodeFrom, decodeTo] = [65, 576];

export async function measureGpuModel(
  open: () => Promise<Model>,
  { device, copyGbps, runs }: { device: DeviceName; copyGbps: number; runs: number },
  signal: AbortSignal,
): Promise<GpuModelReport> {
  await fence(device);
  const before = deviceOf(device).memory().used;
  const start = performance.now();
  const model = await open();
  const loadMs = performance.now() - start;
  try {
    await fence(device);
    const weightBytes = deviceOf(device).memory().used - before;
    const { vocabularySize, stateBytes, kvBytesPerToken } = model.info;
    const decode: DecodeReport[] = [];
    for (const context of [1024, 16_384]) {
      const times: number[] = [];
      for (let run = 0; run < runs; run++) {
        const tokens = someTokens(context, vocabularySize, run);
        const choice = { temperature: 0.7, topP: 0.9, seed: run, ignoreEos: true, maxTokens: decodeTo, signal };
        let count = 0;
        let from = 0;
        for await (const { token } of model.generate({ tokens, ...choice })) {
          if (token >= 0 && ++count === decodeFrom) from = performance.now();
        }
        times.push((performance.now() - from) / (decodeTo - decodeFrom));
      }
      const floorMs = (weightBytes + 2 * stateBytes + kvBytesPerToken * context) / (copyGbps * 1e6);
      const msPerToken = median(times);
      decode.push({ context, msPerToken, floorMs, share: floorMs / msPerToken });
    }
    const prefill: PrefillReport[] = [];
    for (const count of [8192, 131_072]) {
      const waits: number[] = [];
      const works: number[] = [];
      for (let run = 0; run < Math.min(runs, 3); run++) {
        const tokens = someTokens(count, vocabularySize, run);
        let wall = 0;
        const work = await timed(device, async () => {
          const began = performance.now();
          await model.generate({ tokens, maxTokens: 1, temperature: 0, ignoreEos: true, signal }).result;
          wall = performance.now() - began;
        });
        waits.push(wall);
        works.push(work);
      }
      const firstTokenMs = median(waits);
      const tokensPerSecond = (1000 * count) / firstTokenMs;
      prefill.push({ tokens: count, firstTokenMs, deviceMs: median(works), tokensPerSecond });
    }
    return { loadMs, weightBytes, stateBytes, kvBytesPerToken, decode, prefill };
  } finally {
    await model.dispose();
  }
}
