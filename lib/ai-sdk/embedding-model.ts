// A model of linattn as an embedding model of the AI SDK.
import { checkOptions, linattnError, shown } from '../errors';
import type { Model } from '../index';
import { checkModel } from './model';
import type { EmbeddingModel } from './specification';

/** For `embed` and `embedMany`: see `model.embed` for what the vectors are. @throws LinattnError ERR_ARGUMENT */
export function embeddingModel(model: Model, options: { modelId?: string } = {}): EmbeddingModel {
  checkModel('embeddingModel', model);
  checkOptions('embeddingModel', options);
  const { modelId = model.info.family } = options;
  return {
    specificationVersion: 'v4',
    provider: 'linattn',
    modelId,
    maxEmbeddingsPerCall: 2048,
    supportsParallelCalls: true,
    async doEmbed(call) {
      checkOptions('ai-sdk', call);
      const { values, dimensions, abortSignal } = call;
      if (!Array.isArray(values)) {
        throw linattnError('ERR_ARGUMENT', `ai-sdk: values must be a list of texts, got ${shown(values)}`);
      }
      const options = abortSignal === undefined ? {} : { signal: abortSignal };
      const embeddings: number[][] = [];
      let tokens = 0;
      for (const prompt of values) {
        tokens += model.tokenizer.prefix.length + (await model.tokenizer.encode(prompt, options)).length;
        embeddings.push([...(await model.embed({ prompt }, options))]);
      }
      const warnings = dimensions === undefined ? [] : [{ type: 'unsupported' as const, feature: 'dimensions' }];
      return { embeddings, usage: { tokens }, warnings };
    },
  };
}
