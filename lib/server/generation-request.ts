// The fields of a completion or a chat completion: what OpenAI's have in common, with linattn's own beside them.
import type { GenerateOptions } from '../index';
import { samplingRules } from '../ops/sampling-table';
import { ApiError, invalid, unsupported } from './api-error';
import type { Fields } from './fields';

export interface GenerationRequest {
  readonly stream: boolean;
  /** A last event with the usage. */
  readonly includeUsage: boolean;
  /** The id of a session to go on with. */
  readonly session: string | undefined;
  readonly options: GenerateOptions;
}

/** What changes the answer and is not done: the values of each that ask for nothing. */
const idle: Readonly<Record<string, (value: unknown) => boolean>> = {
  n: (value) => value === 1,
  best_of: (value) => value === 1,
  echo: (value) => value === false,
  suffix: (value) => value === '',
  logprobs: (value) => value === false,
  top_logprobs: (value) => value === 0,
  frequency_penalty: (value) => value === 0,
  presence_penalty: (value) => value === 0,
  logit_bias: (value) => typeof value === 'object' && Object.keys(value as object).length === 0,
  tools: (value) => Array.isArray(value) && value.length === 0,
  tool_choice: (value) => value === 'none' || value === 'auto',
  functions: (value) => Array.isArray(value) && value.length === 0,
  response_format: (value) => (value as { type?: unknown }).type === 'text',
  modalities: (value) => Array.isArray(value) && value.every((modality) => modality === 'text'),
  audio: () => false,
};

const samplingFields = {
  temperature: 'temperature',
  topP: 'top_p',
  topK: 'top_k',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  seed: 'seed',
} as const;

/** @throws ApiError 400 that names the field */
export function readGeneration(fields: Fields, maxCompletionTokens: number): GenerationRequest {
  for (const [name, holds] of Object.entries(idle)) {
    const value = fields.get(name);
    if (value !== undefined && !holds(value)) {
      throw unsupported(name, `${name} is not supported here, got ${JSON.stringify(value).slice(0, 100)}`);
    }
  }
  const count = (name: string) => fields.whole(name, 0, maxCompletionTokens);
  const options: GenerateOptions = {};
  const set = <K extends keyof GenerateOptions>(name: K, value: GenerateOptions[K] | undefined) => {
    if (value !== undefined) options[name] = value;
  };
  set('maxTokens', count('max_completion_tokens') ?? count('max_tokens'));
  options.maxTokens ??= Math.min(512, maxCompletionTokens);
  for (const [name, field] of Object.entries(samplingFields)) {
    const key = name as keyof typeof samplingFields;
    set(key, fields.number(field, samplingRules[key]));
  }
  set('ignoreEos', fields.boolean('ignore_eos'));
  set('stop', stopOf(fields));
  return {
    stream: fields.boolean('stream') ?? false,
    includeUsage: fields.object('stream_options')?.boolean('include_usage') ?? false,
    session: fields.string('session'),
    options,
  };
}

const maxStops = 16;

function stopOf(fields: Fields): string | string[] | undefined {
  const stop = fields.get('stop');
  if (stop === undefined) return undefined;
  const stops = Array.isArray(stop) ? stop : [stop];
  if (stops.length <= maxStops && stops.every((text) => typeof text === 'string' && text !== '')) return stops;
  throw invalid('stop', `stop must be a string or at most ${maxStops} of them, none of them empty`);
}

/** ApiError 404 unless the request names this model, or none. */
export function checkModel(fields: Fields, served: string): void {
  const name = fields.string('model');
  if (name === undefined || name === served) return;
  throw new ApiError(404, 'model_not_found', `the model must be ${served}, got ${name}`, 'model');
}
