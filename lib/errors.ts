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
  readonly op?: string;

  /** @internal */
  constructor(code: ErrorCode, message: string, options: { op?: string | undefined; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    if (options.op !== undefined) this.op = options.op;
    Object.defineProperty(this, brand, { value: true });
  }

  /** True for the errors of any copy of linattn, in any realm. */
  static isInstance(value: unknown): value is LinattnError {
    return typeof value === 'object' && value !== null && brand in value;
  }
}
Object.defineProperty(LinattnError.prototype, 'name', { value: 'LinattnError' });

/** Makes the error; `op` is read from a message of the form `op: what was expected and what came`. */
export function linattnError(
  code: ErrorCode,
  message: string,
  options: { op?: string; cause?: unknown } = {},
): LinattnError {
  return new LinattnError(code, message, options);
}
