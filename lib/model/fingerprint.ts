// Tells models apart: states of one mean nothing to another.
import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import type { JsonObject } from './config';
import type { StoredTensor } from './safetensors';

/** Bytes read from the middle of each tensor. */
const sampleBytes = 4096;

/**
 * SHA-256, in hexadecimal digits, of config.json and of every stored tensor: its name, dtype, shape, and the 4,096 bytes
 * in its middle. Reading all weights would cost more than loading them; training changes every part of a tensor.
 */
export async function fingerprint(config: JsonObject, stored: ReadonlyMap<string, StoredTensor>): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(config));
  const files = new Map<string, FileHandle>();
  const sample = Buffer.alloc(sampleBytes);
  try {
    for (const name of [...stored.keys()].sort()) {
      const { file, dtype, shape, offset, byteLength } = stored.get(name)!;
      const handle = files.get(file) ?? (await open(file, 'r'));
      files.set(file, handle);
      const count = Math.min(sampleBytes, byteLength);
      const { bytesRead } = await handle.read(sample, 0, count, offset + Math.floor((byteLength - count) / 2));
      hash.update(JSON.stringify([name, dtype, shape])).update(sample.subarray(0, bytesRead));
    }
  } finally {
    for (const handle of files.values()) await handle.close();
  }
  return hash.digest('hex');
}
