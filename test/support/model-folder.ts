// Copies of golden models in temporary folders, for tests that break them in one way.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Entry, safetensorsBytes } from './make-safetensors';

export type Header = Record<string, Entry>;

const made: string[] = [];

/** A copy of test/golden/`name`. */
export function modelFolder(name: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-model-'));
  made.push(folder);
  cpSync(path.join(__dirname, '..', 'golden', name), folder, { recursive: true });
  return folder;
}

export function removeModelFolders(): void {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true });
}

/** Changes fields of config.json; undefined removes one. */
export function editConfig(folder: string, fields: Record<string, unknown>): void {
  const file = path.join(folder, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...config, ...fields }));
}

/** Changes the header and the data of model.safetensors in place. */
export function editWeights(folder: string, edit: (header: Header, data: Buffer) => void): void {
  const file = path.join(folder, 'model.safetensors');
  const bytes = readFileSync(file);
  const start = 8 + Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString('utf8', 8, start)) as Header;
  const data = bytes.subarray(start);
  edit(header, data);
  writeFileSync(file, safetensorsBytes(header, data));
}
