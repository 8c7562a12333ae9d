// Writes safetensors files for tests, right or wrong on purpose.
import { writeFileSync } from 'node:fs';

export interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** The bytes of a file with this header (any JSON value, or raw text) and data. */
export function safetensorsBytes(header: unknown, data: Uint8Array = new Uint8Array()): Uint8Array {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const start = Buffer.alloc(8);
  start.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([start, json, data]);
}

/** float32 tensors, one after the other. */
export function writeFloats(file: string, tensors: Record<string, { shape: number[]; data: Float32Array }>): void {
  const header: Record<string, Entry> = {};
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at + data.byteLength] };
    parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    at += data.byteLength;
  }
  writeFileSync(file, safetensorsBytes(header, Buffer.concat(parts)));
}
