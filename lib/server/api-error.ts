// Failures in the form that OpenAI's clients know: {error: {message, type, param, code}} and a status.
import { getSystemErrorMap } from 'node:util';
import { type ErrorCode, LinattnError } from '../errors';

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** The field of the request that is wrong. */
    readonly param: string | null = null,
  ) {
    super(message);
  }

  get type(): string {
    if (this.status >= 500) return 'server_error';
    return this.status === 429 ? 'rate_limit_error' : 'invalid_request_error';
  }

  get body(): { error: { message: string; type: string; param: string | null; code: string } } {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

export const invalid = (param: string | null, message: string): ApiError =>
  new ApiError(400, 'invalid_value', message, param);
export const unsupported = (param: string, message: string): ApiError =>
  new ApiError(400, 'unsupported_parameter', message, param);
export const draining = (): ApiError => new ApiError(503, 'draining', 'the server is shutting down');
/** Nobody reads it: the status is the one that metrics show. */
export const clientGone = (): ApiError => new ApiError(499, 'client_closed_request', 'the client went away');

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_ARGUMENT: 400,
  ERR_TOKENIZER: 400,
  ERR_UNSUPPORTED: 400,
  ERR_SNAPSHOT_CORRUPT: 400,
  ERR_SNAPSHOT_VERSION: 400,
  ERR_SNAPSHOT_MODEL: 400,
  ERR_SNAPSHOT_DTYPE: 400,
  ERR_BUSY: 409,
  ERR_DISPOSED: 409, // of a session that was deleted under a request
  ERR_OUT_OF_MEMORY: 503,
  ERR_QUEUE_FULL: 429,
};

const requestCodes: Readonly<Record<number, string>> = { 413: 'body_too_large', 415: 'unsupported_media_type' };

/** Of a file what the system says of it, without its path; of anything else of the server's nothing. */
function serverFailure({ code, cause }: LinattnError): string {
  if (code !== 'ERR_FILE') return 'the model failed';
  const [name, reason] = getSystemErrorMap().get((cause as NodeJS.ErrnoException | undefined)?.errno ?? 0) ?? [];
  return name === undefined ? 'a file of the server failed' : `a file of the server failed: ${reason} (${name})`;
}

/** What a failure is to the client; what it has no part in is told in no detail. */
export function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (LinattnError.isInstance(error)) {
    const status = statuses[error.code] ?? 500;
    return new ApiError(status, error.code, status === 500 ? serverFailure(error) : error.message);
  }
  // fastify's own: a body that is too large, no JSON, of another type.
  const { statusCode, message } = error as { statusCode?: unknown; message: string };
  if (typeof statusCode === 'number' && statusCode < 500) {
    return new ApiError(statusCode, requestCodes[statusCode] ?? 'invalid_request', message);
  }
  return new ApiError(500, 'internal_error', 'the server failed');
}
