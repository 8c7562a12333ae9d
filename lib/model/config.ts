// Reads a model's config.json: every field is asked for by name and kind, and what nobody asked for is refused by name.
import { promises as fs } from 'node:fs';
import path from 'node:path';
import { type LinattnError, linattnError } from '../errors';

export type JsonObject = Record<string, unknown>;

/** The object in a JSON file; undefined when `optional` and there is no such file. ERR_FILE, or `code` for bad content. */
export async function readJson(file: string, code: 'ERR_MODEL_UNSUPPORTED' | 'ERR_FILE'): Promise<JsonObject>;
export async function readJson(
  file: string,
  code: 'ERR_MODEL_UNSUPPORTED' | 'ERR_FILE',
  optional: true,
): Promise<JsonObject | undefined>;
export async function readJson(
  file: string,
  code: 'ERR_MODEL_UNSUPPORTED' | 'ERR_FILE',
  optional = false,
): Promise<JsonObject | undefined> {
  let text: string;
  try {
    text = await fs.readFile(file, 'utf8');
  } catch (cause) {
    if (optional && (cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw linattnError('ERR_FILE', `${file}: ${(cause as Error).message}`, { cause });
  }
  try {
    const value: unknown = parsed(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch (cause) {
    throw linattnError(code, `${file}: not JSON: ${(cause as Error).message}`, { cause });
  }
  throw linattnError(code, `${file}: must hold a JSON object`);
}

/** JSON, or what Python writes for infinite numbers. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const finite = text.replace(/([:[,]\s*-?)Infinity\b/g, '$11e999');
    if (finite === text) throw error;
    return JSON.parse(finite);
  }
}

const mostParts = 4096;

const kinds = {
  number: (value: unknown) => typeof value === 'number' && Number.isFinite(value),
  size: (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0,
  /** Of layers and the like, each of which takes objects of JavaScript's. */
  count: (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0 && (value as number) <= mostParts,
  boolean: (value: unknown) => typeof value === 'boolean',
  string: (value: unknown) => typeof value === 'string',
};
type Kinds = { number: number; size: number; count: number; boolean: boolean; string: string };
const words = {
  number: 'a number',
  size: 'a whole number > 0',
  count: `a whole number from 1 to ${mostParts}`,
  boolean: 'true or false',
  string: 'a string',
};

/** One object of a config; remembers which fields were asked for. */
export class Config {
  private readonly asked = new Set<string>();

  constructor(
    /** What error messages call it: the file, with the path inside it. */
    readonly where: string,
    readonly fields: JsonObject,
  ) {}

  static async read(folder: string): Promise<Config> {
    const file = path.join(folder, 'config.json');
    return new Config(file, await readJson(file, 'ERR_MODEL_UNSUPPORTED'));
  }

  /** A field of a kind; without a default it must be there (null counts as absent). */
  get<K extends keyof Kinds>(kind: K, name: string, fallback?: Kinds[K]): Kinds[K] {
    const value = this.raw(name);
    if (value === undefined && fallback !== undefined) return fallback;
    if (!kinds[kind](value)) throw this.bad(name, words[kind], value);
    return value as Kinds[K];
  }

  /** The field if it is there, of any kind; null counts as absent. */
  raw(name: string): unknown {
    this.asked.add(name);
    return this.fields[name] ?? undefined;
  }

  /** The field must be absent or one of these. Returns it, or the first. */
  only<T extends string | number | boolean>(name: string, ...allowed: [T, ...T[]]): T {
    const value = this.raw(name);
    if (value === undefined) return allowed[0];
    if (!allowed.includes(value as T)) {
      throw this.bad(name, allowed.map((item) => JSON.stringify(item)).join(' or '), value);
    }
    return value as T;
  }

  /** A nested object, or undefined. */
  object(name: string): Config | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) throw this.bad(name, 'an object', value);
    return new Config(`${this.where}: ${name}`, value as JsonObject);
  }

  /** A list of whole numbers >= 0, or undefined. */
  numbers(name: string): number[] | undefined {
    const value = this.raw(name);
    if (value === undefined) return undefined;
    const list = Array.isArray(value) ? value : [value];
    if (!list.every((item) => Number.isSafeInteger(item) && item >= 0)) {
      throw this.bad(name, 'whole numbers >= 0', value);
    }
    return list as number[];
  }

  /** A pair of numbers, the second not below the first; {"__float__": "Infinity"} is how transformers writes infinity. */
  range(name: string, fallback: readonly [number, number]): readonly [number, number] {
    const value = this.raw(name);
    if (value === undefined) return fallback;
    const numberOf = (item: unknown): unknown =>
      (item as { __float__?: unknown } | null)?.__float__ === 'Infinity' ? Number.POSITIVE_INFINITY : item;
    const [low, high] = Array.isArray(value) && value.length === 2 ? value.map(numberOf) : [];
    if (typeof low === 'number' && typeof high === 'number' && low <= high) return [low, high];
    throw this.bad(name, 'two numbers, the smaller one first', value);
  }

  /** Fields without a meaning for inference. */
  ignore(...names: string[]): void {
    for (const name of names) this.asked.add(name);
  }

  /** Refuses every field that nobody asked for. */
  finish(): void {
    const unknown = Object.keys(this.fields).filter((name) => !this.asked.has(name) && !name.startsWith('_'));
    if (unknown.length > 0) {
      throw linattnError('ERR_MODEL_UNSUPPORTED', `${this.where}: unknown fields: ${unknown.join(', ')}`);
    }
  }

  bad(name: string, wanted: string, got: unknown): LinattnError {
    const text = got === undefined ? 'nothing' : JSON.stringify(got).slice(0, 200);
    return linattnError('ERR_MODEL_UNSUPPORTED', `${this.where}: ${name} must be ${wanted}, got ${text}`);
  }
}

/** Fields that Hugging Face writes into every config and that change nothing here. */
export const bookkeeping = [
  'architectures',
  'attention_dropout',
  'auto_map',
  'dtype',
  'torch_dtype',
  'initializer_range',
  'transformers_version',
  'use_cache',
  'pad_token_id',
  'bos_token_id',
  'model_type',
  'return_dict',
  'output_hidden_states',
  'output_attentions',
  'chunk_size_feed_forward',
  'is_encoder_decoder',
  'id2label',
  'label2id',
  'problem_type',
] as const;
