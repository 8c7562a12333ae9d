// What a caller gives to read, and the options of a generation, checked before anything starts.
import { checkOptions, linattnError, shown } from '../errors';
import type { Sampling } from '../ops/sampling-table';
import { encodeSampling } from '../ops/sampling-table';
import type { Message, Progress } from '../tokenizer/tokenizer';
import { leadingTokenIds } from './token-ids';

/**
 * prompt, messages and tokens are the whole context, of which what the session holds is not read again; append is what
 * comes next.
 */
export type Input =
  | { prompt: string }
  | { messages: readonly Message[] }
  | { tokens: ArrayLike<number> }
  | { append: string | ArrayLike<number> };

export interface PrefillOptions {
  /** Takes effect within one slice of the prompt or one token; the call rejects with signal.reason. */
  signal?: AbortSignal;
  /** From -10 to 10, default 0: higher is served first. Who waits long enough rises, so that none starves. */
  priority?: number;
  /** In tokens of the context; `cached` of them were not read. */
  onPrefillProgress?: (progress: Progress & { readonly cached: number }) => void;
}

export interface GenerateOptions extends PrefillOptions {
  /** Default 512. */
  maxTokens?: number;
  /** The text ends before the first of these. */
  stop?: string | readonly string[];
  /** From 0 to 2^53 - 1, default random. The same seed gives the same text on the same device and version. */
  seed?: number;
  /** Defaults of these come from the model's generation_config.json. temperature 0 takes the most probable token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** Go on after the model's own end-of-text tokens (for benchmarks). Default false. */
  ignoreEos?: boolean;
}

/** More are no text: their ids alone would take a gigabyte. */
const mostTokens = 2 ** 28;

/** What the device counts down from; no text is longer. */
const mostWritten = 2 ** 31 - 1;

const names = ['prompt', 'messages', 'tokens', 'append'] as const;

/** The one input among the options, or undefined. ERR_ARGUMENT when there are two or one is of a wrong kind, or the
 * options beside it are. */
export function inputOf(call: string, options: Partial<Record<(typeof names)[number], unknown>>): Input | undefined {
  checkOptions(call, options, 'onPrefillProgress');
  const given = names.filter((name) => options[name] !== undefined);
  const fail = (message: string): never => {
    throw linattnError('ERR_ARGUMENT', `${call}: ${message}`);
  };
  if (given.length > 1) fail(`give one of ${names.join(', ')}, got ${given.join(' and ')}`);
  const name = given[0];
  if (name === undefined) return undefined;
  const value = options[name];
  const isText = typeof value === 'string';
  const isCount = (length: number) => Number.isSafeInteger(length) && length >= 0 && length <= mostTokens;
  const isList = typeof value === 'object' && value !== null && isCount((value as ArrayLike<unknown>).length);
  if (name === 'prompt' && !isText) fail(`prompt must be a string, got ${typeof value}`);
  if (name === 'append' && !isText && !isList) fail(`append must be a string or token ids, got ${typeof value}`);
  if (name === 'tokens' && !isList) fail(`tokens must be token ids, got ${typeof value}`);
  if (name === 'messages') {
    const message = (item: unknown) =>
      typeof (item as Message)?.role === 'string' && typeof (item as Message)?.content === 'string';
    if (!Array.isArray(value) || !value.every(message)) fail('messages must be a list of {role, content} of strings');
  }
  return { [name]: value } as unknown as Input;
}

/** Token ids as int32, each below `vocabularySize`; ERR_ARGUMENT otherwise. */
export function checkedTokens(call: string, tokens: ArrayLike<number>, vocabularySize: number): Int32Array {
  const ids = tokens instanceof Int32Array ? new Int32Array(tokens) : tokens; // a copy first: another thread may write to it
  const wrong = leadingTokenIds(ids, vocabularySize);
  if (wrong < ids.length) {
    const id = ids[wrong];
    throw linattnError(
      'ERR_ARGUMENT',
      `${call}: tokens[${wrong}] must be a whole number below ${vocabularySize}, got ${typeof id === 'number' ? id : typeof id}`,
    );
  }
  if (ids instanceof Int32Array) return ids;
  const copied = new Int32Array(ids.length);
  copied.set(ids);
  return copied;
}

/** Sampling with the model's defaults under the caller's options. ERR_ARGUMENT names what is out of range. */
export function samplingOf(options: GenerateOptions, defaults: Sampling): Sampling {
  const sampling: Sampling = { temperature: 0, ...defaults };
  for (const name of ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty'] as const) {
    if (options[name] !== undefined) sampling[name] = options[name];
  }
  sampling.seed = options.seed === undefined ? Math.floor(Math.random() * 2 ** 53) : options.seed;
  encodeSampling(sampling);
  return sampling;
}

/** ERR_ARGUMENT unless priority is a whole number from -10 to 10. */
export function checkPriority(call: string, { priority = 0 }: PrefillOptions): void {
  if (Number.isSafeInteger(priority) && Math.abs(priority) <= 10) return;
  throw linattnError('ERR_ARGUMENT', `${call}: priority must be a whole number from -10 to 10, got ${shown(priority)}`);
}

/** How many tokens there may be, and whether the model's own end counts. ERR_ARGUMENT. */
export function endOf(options: GenerateOptions): { maxTokens: number; ignoreEos: boolean } {
  const { maxTokens = 512, ignoreEos = false } = options;
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 0) {
    throw linattnError('ERR_ARGUMENT', `generate: maxTokens must be a whole number >= 0, got ${shown(maxTokens)}`);
  }
  if (typeof ignoreEos !== 'boolean') {
    throw linattnError('ERR_ARGUMENT', `generate: ignoreEos must be true or false, got ${shown(ignoreEos)}`);
  }
  return { maxTokens: Math.min(maxTokens, mostWritten), ignoreEos };
}
