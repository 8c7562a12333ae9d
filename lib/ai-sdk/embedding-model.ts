// A model of linattn as an embedding model of the AI SDK.
import type { Model } from '../index';
import type { EmbeddingModel } from './specification';

/** For `embed` and `embedMany`: see `model.embed` for what the vectors are. */
export function embeddingModel(
  model: Model,
  { modelId = model.info.family }: { modelId?: string } = {},
): EmbeddingModel {
  return {
    specificationVersion: 'v4',
    provider: 'linattn',
    modelId,
    maxEmbeddingsPerCall: 2048,
    supportsParallelCalls: true,
    async doEmbed({ values, dimensions, abortSignal }) {
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
