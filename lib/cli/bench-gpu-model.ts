// The whole model on a GPU: decode as a consumer of the stream sees it, and prefill, against the device's own limits.
import type { Model } from '../index';
import { type DeviceName, deviceOf, fence } from '../tensor/device';
import { someTokens } from './bench-data';
import { measurePrefill, type PrefillReport } from './bench-gpu-prefill';
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

const [decodeFrom, decodeTo] = [65, 576];

export async function measureGpuModel(
  open: () => Promise<Model>,
  {
    device,
    copyGbps,
    matmulTflops,
    runs,
  }: { device: DeviceName; copyGbps: number; matmulTflops: number; runs: number },
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
        const at: number[] = [];
        for await (const { token } of model.generate({ tokens, ...choice })) {
          if (token >= 0) at.push(performance.now());
        }
        times.push((at[decodeTo - 1]! - at[decodeFrom - 1]!) / (decodeTo - decodeFrom));
      }
      const floorMs = (weightBytes + 2 * stateBytes + kvBytesPerToken * context) / (copyGbps * 1e6);
      const msPerToken = median(times);
      decode.push({ context, msPerToken, floorMs, share: floorMs / msPerToken });
    }
    const prefill: PrefillReport[] = [];
    for (const count of [8192, 131_072]) {
      prefill.push(await measurePrefill(model, { device, count, runs: Math.min(runs, 3), matmulTflops, signal }));
    }
    return { loadMs, weightBytes, stateBytes, kvBytesPerToken, decode, prefill };
  } finally {
    await model.dispose();
  }
}
