// The safetensors file format: u64 little-endian header length, JSON header, data. Everything in the header is checked
// before a byte of data is touched: a hostile or truncated file is ERR_SAFETENSORS, never a crash.
// Format: https://github.com/huggingface/safetensors#format
import fs from 'node:fs/promises';
import path from 'node:path';
import { linattnError } from '../errors';
import type { DType } from '../tensor/dtype';

/** Where a tensor lies in a file. */
export interface StoredTensor {
  readonly name: string;
  readonly file: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Bytes from the start of the file. */
  readonly offset: number;
  readonly byteLength: number;
}

const maxHeader = 100_000_000;
const maxTensors = 1_000_000;

const storedDTypes = new Map<string, { dtype: DType; bytes: number }>(
  Object.entries({
    F32: { dtype: 'float32', bytes: 4 },
    F16: { dtype: 'float16', bytes: 2 },
    BF16: { dtype: 'bfloat16', bytes: 2 },
    I8: { dtype: 'int8', bytes: 1 },
    U8: { dtype: 'uint8', bytes: 1 },
    I32: { dtype: 'int32', bytes: 4 },
    I64: { dtype: 'int64', bytes: 8 },
  } as const),
);
const otherDTypes = new Map(
  Object.entries({ BOOL: 1, F64: 8, U16: 2, I16: 2, U32: 4, U64: 8, F8_E4M3: 1, F8_E5M2: 1 }),
);

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/**
 * Reads a header (the JSON bytes) against the size of the data that follows it.
 * Tensors of a dtype that no op takes are left out of the result, but checked like the others.
 * @throws LinattnError ERR_SAFETENSORS naming the file, the tensor, what was expected and what came
 */
export function parseHeader(file: string, json: Uint8Array, dataBytes: number): StoredTensor[] {
  const fail = (message: string): never => {
    throw linattnError('ERR_SAFETENSORS', `${file}: ${message}`);
  };
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (cause) {
    return fail(`the header is not JSON: ${(cause as Error).message}`);
  }
  if (!isObject(header)) return fail('the header must be a JSON object');
  const dataStart = 8 + json.length;
  const names = Object.keys(header).filter((name) => name !== '__metadata__');
  if (names.length > maxTensors) fail(`${names.length} tensors, at most ${maxTensors} are read`);
  const tensors: StoredTensor[] = [];
  const ranges: { name: string; begin: number; end: number }[] = [];
  for (const name of names) {
    const entry = header[name];
    if (!isObject(entry)) return fail(`${name}: its entry must be an object`);
    const { dtype, shape, data_offsets: offsets } = entry;
    if (typeof dtype !== 'string') return fail(`${name}: dtype must be a string`);
    const bytes = storedDTypes.get(dtype)?.bytes ?? otherDTypes.get(dtype);
    if (bytes === undefined) return fail(`${name}: unknown dtype ${JSON.stringify(dtype)}`);
    if (!Array.isArray(shape) || shape.length > 8 || !shape.every(isSize)) {
      return fail(`${name}: shape must be at most 8 whole numbers >= 0, got ${JSON.stringify(shape)?.slice(0, 100)}`);
    }
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
      return fail(
        `${name}: data_offsets must be two whole numbers >= 0, got ${JSON.stringify(offsets)?.slice(0, 100)}`,
      );
    }
    const [begin, end] = offsets as [number, number];
    const wanted = shape.reduce((product: number, size) => product * (size as number), bytes);
    if (begin > end || end > dataBytes) {
      return fail(`${name}: data_offsets [${begin}, ${end}] must lie in the file's ${dataBytes} bytes of data`);
    }
    if (end - begin !== wanted) {
      return fail(`${name}: ${dtype} [${shape.join(', ')}] needs ${wanted} bytes, data_offsets give ${end - begin}`);
    }
    ranges.push({ name, begin, end });
    const known = storedDTypes.get(dtype);
    if (known !== undefined) {
      tensors.push({ name, file, dtype: known.dtype, shape, offset: dataStart + begin, byteLength: end - begin });
    }
  }
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let reached = 0;
  for (const range of ranges) {
    if (range.begin < reached) fail(`${range.name}: its data overlaps that of another tensor`);
    reached = range.end;
  }
  return tensors;
}

/** The tensors of one file. @throws LinattnError ERR_FILE, ERR_SAFETENSORS */
export async function readSafetensors(file: string): Promise<StoredTensor[]> {
  try {
    const handle = await fs.open(file, 'r');
    return await headerOf(file, handle).finally(() => handle.close());
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
    throw linattnError('ERR_FILE', `${file}: ${(cause as Error).message}`, { cause });
  }
}

async function headerOf(file: string, handle: fs.FileHandle): Promise<StoredTensor[]> {
  const { size } = await handle.stat();
  const fail = (message: string): never => {
    throw linattnError('ERR_SAFETENSORS', `${file}: ${message}`);
  };
  const start = Buffer.alloc(8);
  if ((await handle.read(start, 0, 8, 0)).bytesRead < 8) fail(`${size} bytes are too few for a header`);
  const length = start.readBigUInt64LE();
  if (length > BigInt(maxHeader)) fail(`a header of ${length} bytes, at most ${maxHeader} are read`);
  const bytes = Number(length);
  if (8 + bytes > size) fail(`a header of ${bytes} bytes in a file of ${size}`);
  const json = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await handle.read(json, at, bytes - at, 8 + at);
    if (bytesRead === 0) fail('the file ended inside its header');
    at += bytesRead;
  }
  return parseHeader(file, json, size - 8 - bytes);
}

/**
 * The tensors of a model folder by name: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
 * @throws LinattnError ERR_FILE, ERR_SAFETENSORS
 */
export async function readCheckpoint(folder: string): Promise<Map<string, StoredTensor>> {
  const indexFile = path.join(folder, 'model.safetensors.index.json');
  const text = await fs.readFile(indexFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw linattnError('ERR_FILE', `${indexFile}: ${error.message}`, { cause: error });
  });
  const checkpoint = new Map<string, StoredTensor>();
  if (text === undefined) {
    for (const tensor of await readSafetensors(path.join(folder, 'model.safetensors')))
      checkpoint.set(tensor.name, tensor);
    return checkpoint;
  }
  const map = weightMap(indexFile, text);
  for (const shard of new Set(map.values())) {
    for (const tensor of await readSafetensors(path.join(folder, shard))) {
      if (map.get(tensor.name) === shard) checkpoint.set(tensor.name, tensor);
    }
  }
  return checkpoint;
}

function weightMap(file: string, text: string): Map<string, string> {
  let index: unknown;
  try {
    index = JSON.parse(text);
  } catch (cause) {
    throw linattnError('ERR_SAFETENSORS', `${file}: not JSON: ${(cause as Error).message}`, { cause });
  }
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) throw linattnError('ERR_SAFETENSORS', `${file}: weight_map must be an object`);
  for (const [name, shard] of Object.entries(map)) {
    // A shard is a file of this folder: a path that leaves it is refused.
    if (typeof shard !== 'string' || shard !== path.basename(shard) || shard === '..' || shard === '') {
      throw linattnError('ERR_SAFETENSORS', `${file}: ${name}: ${JSON.stringify(shard)} is not a file name`);
    }
  }
  return new Map(Object.entries(map as Record<string, string>));
}
