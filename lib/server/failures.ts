// A failure of a request, counted and told to whom it concerns.
import { type ApiError, apiErrorOf } from './api-error';
import type { Service } from './service';

export function failed({ metrics, options }: Pick<Service, 'metrics' | 'options'>, error: unknown): ApiError {
  const failure = apiErrorOf(error);
  metrics.errors.add(1, { code: failure.code });
  if (failure.status === 500) options.onError?.(error);
  return failure;
}
