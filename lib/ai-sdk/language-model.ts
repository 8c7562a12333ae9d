// A model of linattn as a language model of the AI SDK.
import { checkOptions } from '../errors';
import type { GenerateOptions, GenerateResult, Generation, Model, Session } from '../index';
import { checkModel } from './model';
import { inputOf } from './prompt';
import type {
  FinishReason,
  LanguageModel,
  LanguageModelCall,
  LanguageModelUsage,
  ProviderMetadata,
  StreamPart,
  Warning,
} from './specification';

export interface LanguageModelOptions {
  /** Default the model's family. */
  modelId?: string;
  /** Where all calls read and write: a next turn does not read again what it holds. One call at a time then. */
  session?: Session;
}

/** What `providerOptions: { linattn: ... }` may carry. */
const ownOptions = ['minP', 'repetitionPenalty', 'ignoreEos', 'onPrefillProgress'] as const;
/** Settings that change the answer and are not done. */
const undone = ['presencePenalty', 'frequencyPenalty', 'tools'] as const;

/**
 * For `generateText`, `streamText` and what else of the AI SDK takes a language model. `providerOptions.linattn` may have
 * minP, repetitionPenalty, ignoreEos, onPrefillProgress, and chatTemplate: variables that the chat template sees.
 * Failures are LinattnErrors.
 * @throws LinattnError ERR_ARGUMENT
 */
export function languageModel(model: Model, options: LanguageModelOptions = {}): LanguageModel {
  checkModel('languageModel', model);
  checkOptions('languageModel', options);
  const { modelId = model.info.family, session } = options;
  async function start(call: LanguageModelCall): Promise<{ generation: Generation; warnings: Warning[] }> {
    checkOptions('ai-sdk', call);
    const own = call.providerOptions?.linattn ?? {};
    const variables = (own.chatTemplate ?? {}) as Record<string, unknown>;
    const input = await inputOf(model.tokenizer, call.prompt, variables, call.abortSignal);
    const generation = (session ?? model).generate({ ...input, ...optionsOf(call, own) });
    return { generation, warnings: warningsOf(call) };
  }
  return {
    specificationVersion: 'v4',
    provider: 'linattn',
    modelId,
    supportedUrls: {},
    async doGenerate(call) {
      const { generation, warnings } = await start(call);
      const result = await generation.result;
      return { content: [{ type: 'text', text: result.text }], ...endOf(result), warnings };
    },
    async doStream(call) {
      const { generation, warnings } = await start(call);
      return { stream: streamOf(generation, warnings, call.abortSignal) };
    },
  };
}

function optionsOf(call: LanguageModelCall, own: Readonly<Record<string, unknown>>): GenerateOptions {
  const { abortSignal: signal, maxOutputTokens: maxTokens, stopSequences: stop, temperature, topK, topP, seed } = call;
  const all = { signal, maxTokens, stop, temperature, topK, topP, seed };
  const given = [...Object.entries(all), ...ownOptions.map((name) => [name, own[name]] as const)];
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

function warningsOf(call: LanguageModelCall): Warning[] {
  const asked = (value: unknown) => (Array.isArray(value) ? value.length > 0 : value !== undefined && value !== 0);
  const features: string[] = undone.filter((name) => asked(call[name]));
  if (call.responseFormat !== undefined && call.responseFormat.type !== 'text') features.push('responseFormat');
  return features.map((feature) => ({ type: 'unsupported', feature }));
}

function endOf({ finishReason, usage }: GenerateResult): {
  finishReason: FinishReason;
  usage: LanguageModelUsage;
  providerMetadata: ProviderMetadata;
} {
  const { promptTokens: total, cachedTokens: cacheRead, completionTokens } = usage;
  const { stateBytes, kvBytes, tokensPerSecond, timeToFirstTokenMs } = usage;
  return {
    finishReason: { unified: finishReason === 'cancelled' ? 'other' : finishReason, raw: finishReason },
    usage: {
      inputTokens: { total, noCache: total - cacheRead, cacheRead, cacheWrite: undefined },
      outputTokens: { total: completionTokens, text: completionTokens, reasoning: undefined },
    },
    providerMetadata: { linattn: { stateBytes, kvBytes, tokensPerSecond, timeToFirstTokenMs } },
  };
}

const id = 'text';

/** Cancelling it ends the generation at once; an abort is an error of the stream, any other failure a part of it. */
function streamOf(
  generation: Generation,
  warnings: Warning[],
  signal: AbortSignal | undefined,
): ReadableStream<StreamPart> {
  const chunks = generation[Symbol.asyncIterator]();
  return new ReadableStream<StreamPart>({
    start(parts) {
      parts.enqueue({ type: 'stream-start', warnings });
      parts.enqueue({ type: 'text-start', id });
    },
    async pull(parts) {
      try {
        for (let next = await chunks.next(); !next.done; next = await chunks.next()) {
          const delta = next.value.text;
          if (delta !== '') return parts.enqueue({ type: 'text-delta', id, delta });
        }
        parts.enqueue({ type: 'text-end', id });
        parts.enqueue({ type: 'finish', ...endOf(await generation.result) });
      } catch (error) {
        if (signal?.aborted) return parts.error(error);
        parts.enqueue({ type: 'error', error });
      }
      parts.close();
    },
    async cancel() {
      await chunks.return?.();
    },
  });
}
