// Reads the golden cases under test/golden: arrays made by outside implementations, and how they were made.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export type GoldenArray =
  | { readonly dtype: 'float32'; readonly shape: readonly number[]; readonly data: Float32Array }
  | { readonly dtype: 'int32'; readonly shape: readonly number[]; readonly data: Int32Array };

export interface GoldenMeta {
  readonly family: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly seed: number;
  readonly parameters: number;
  readonly tolerance: {
    /** Bar on norm(a - b) / norm(b) over all positions. */
    readonly relative_l2: number;
    /** Argmax is compared where the top-2 gap exceeds this times relative_l2 times the row's largest |logit|. */
    readonly argmax_gap_factor: number;
    /** At least this share of the rows must qualify for that comparison. */
    readonly qualifying_share: number;
  };
  readonly measured: Readonly<Record<string, number>>;
}

export interface Golden {
  /** The folder that a loader takes: config.json and the weights. */
  readonly folder: string;
  readonly meta: GoldenMeta;
  /** Throws when the case has no such float32 array. */
  float32(name: string): { readonly shape: readonly number[]; readonly data: Float32Array };
  /** Throws when the case has no such int32 array. */
  int32(name: string): { readonly shape: readonly number[]; readonly data: Int32Array };
}

/** All arrays of one golden.safetensors (float32 and int32 only, little endian). */
export function readGoldenArrays(file: string): Record<string, GoldenArray> {
  const bytes = readFileSync(file);
  const headerBytes = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const arrays: Record<string, GoldenArray> = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    // A copy of its own: typed arrays need an aligned offset, which a slice of the file does not promise.
    const copy = new Uint8Array(bytes.subarray(8 + headerBytes + data_offsets[0], 8 + headerBytes + data_offsets[1]));
    if (dtype === 'F32') arrays[name] = { dtype: 'float32', shape, data: new Float32Array(copy.buffer) };
    else if (dtype === 'I32') arrays[name] = { dtype: 'int32', shape, data: new Int32Array(copy.buffer) };
    else throw new Error(`${file}: ${name} has dtype ${dtype}, want F32 or I32`);
  }
  return arrays;
}

/** `readGolden('qwen3_5/tied')` reads test/golden/qwen3_5/tied. */
export function readGolden(name: string): Golden {
  const folder = join(__dirname, '..', 'golden', name);
  const arrays = readGoldenArrays(join(folder, 'golden.safetensors'));
  function pick<D extends GoldenArray['dtype']>(key: string, dtype: D): Extract<GoldenArray, { dtype: D }> {
    const array = arrays[key];
    if (array?.dtype !== dtype)
      throw new Error(`${folder}: no ${dtype} array ${key}, has ${Object.keys(arrays).join(', ')}`);
    return array as Extract<GoldenArray, { dtype: D }>;
  }
  return {
    folder,
    meta: JSON.parse(readFileSync(join(folder, 'golden.json'), 'utf8')) as GoldenMeta,
    float32: (key) => pick(key, 'float32'),
    int32: (key) => pick(key, 'int32'),
  };
}
