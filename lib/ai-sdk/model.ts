// What the AI SDK's models are made of.
import { linattnError, shown } from '../errors';
import type { Model } from '../index';

/** ERR_ARGUMENT unless it is a model of linattn. */
export function checkModel(call: string, model: Model): void {
  if (typeof model?.generate === 'function' && typeof model.embed === 'function') return;
  throw linattnError('ERR_ARGUMENT', `${call}: model must be what load() gives, got ${shown(model)}`);
}
