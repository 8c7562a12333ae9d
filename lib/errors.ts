// The one error class of the package and its codes.

export type ErrorCode =
  | 'ERR_ARGUMENT'
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_DISPOSED'
  | 'ERR_BUSY'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_CUDA'
  | 'ERR_DEVICE_LOST'
  | 'ERR_UNSUPPORTED'
  | 'ERR_ADDON'
  | 'ERR_FILE'
  | 'ERR_SAFETENSORS'
  | 'ERR_MODEL_UNSUPPORTED'
  | 'ERR_WEIGHTS'
  | 'ERR_TOKENIZER'
  | 'ERR_QUEUE_FULL'
  | 'ERR_SNAPSHOT_CORRUPT'
  | 'ERR_SNAPSHOT_VERSION'
  | 'ERR_SNAPSHOT_MODEL'
  | 'ERR_SNAPSHOT_DTYPE';

const brand = Symbol.for('linattn.error');

/** Every failure of linattn, told apart by `code`. An abort rejects with `signal.reason` instead. */
export class LinattnError extends Error {
  readonly code: ErrorCode;
  /** The op that failed, where it is known. */
  declare readonly op?: string;

  /** @internal */
  constructor(code: ErrorCode, message: string, options: { op?: string | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    if (options.op !== undefined) (this as { op?: string }).op = options.op;
    Object.defineProperty(this, brand, { value: true });
  }

  /** True for the errors of any copy of linattn, in any realm. */
  static isInstance(value: unknown): value is LinattnError {
    return typeof value === 'object' && value !== null && brand in value;
  }
}
Object.defineProperty(LinattnError.prototype, 'name', { value: 'LinattnError' });

/** A value that may be anything, for a message: numbers and strings as they are, of others what they are. */
export function shown(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'bigint') return `${value}n`;
  return typeof value === 'function' || typeof value === 'symbol' ? `a ${typeof value}` : String(value);
}

/**
 * ERR_ARGUMENT unless `options` is an object, its signal (if any) an AbortSignal and its callbacks functions: what JavaScript
 * may give in spite of the types.
 */
export function checkOptions(call: string, options: unknown, ...callbacks: readonly string[]): void {
  const wrong = (name: string, wanted: string, value: unknown): LinattnError =>
    linattnError(
      'ERR_ARGUMENT',
      `${call}: ${name} must be ${wanted}, got ${typeof value === 'object' ? shown(value) : typeof value}`,
    );
  if (typeof options !== 'object' || options === null || Array.isArray(options))
    throw wrong('options', 'an object', options);
  const given = options as Readonly<Record<string, unknown>>;
  const { signal } = given;
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw wrong('signal', 'an AbortSignal', signal);
  for (const name of callbacks) {
    if (given[name] !== undefined && typeof given[name] !== 'function') throw wrong(name, 'a function', given[name]);
  }
}

/** Makes the error; its message has the form `call: what was expected and what came`. */
export function linattnError(
  code: ErrorCode,
  message: string,
  options: { op?: string; cause?: unknown } = {},
): LinattnError {
  return new LinattnError(code, message, options);
}
