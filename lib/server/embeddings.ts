// POST /v1/embeddings: the mean of the last hidden states over the tokens of a text, of length 1.
import type { FastifyInstance } from 'fastify';
import { joined } from '../generation/token-list';
import type { Model } from '../index';
import { invalid, unsupported } from './api-error';
import { Fields } from './fields';
import { checkModel } from './generation-request';
import { checkCount, checkIds } from './prompts';
import type { Service } from './service';

/** As OpenAI has it. */
const maxInputs = 2048;

export function addEmbeddingRoute(app: FastifyInstance, service: Service): void {
  const { model, options, work, metrics } = service;
  app.post('/v1/embeddings', { onRequest: async () => work.admission.checkRoom() }, async (request, reply) => {
    const fields = new Fields(request.body);
    checkModel(fields, options.modelName);
    const inputs = inputsOf(fields.get('input'));
    for (const ids of inputs) if (typeof ids !== 'string') checkIds('input', ids, model);
    const format = fields.string('encoding_format') ?? 'float';
    if (format !== 'float' && format !== 'base64') {
      throw invalid('encoding_format', `encoding_format must be float or base64, got ${format}`);
    }
    if (fields.get('dimensions') !== undefined) throw unsupported('dimensions', 'dimensions is not supported here');
    return work.run(reply.raw, async (signal) => {
      const texts = await Promise.all(inputs.map((input) => tokensOf(model, input, signal)));
      const total = texts.reduce((sum, tokens) => sum + tokens.length, 0);
      checkCount('input', total, options.maxPromptTokens);
      const data: object[] = [];
      for (const [index, tokens] of texts.entries()) {
        const vector = await model.embed({ tokens }, { signal });
        const embedding = format === 'float' ? [...vector] : Buffer.from(vector.buffer).toString('base64');
        data.push({ object: 'embedding', index, embedding });
      }
      metrics.count({ promptTokens: total });
      return {
        object: 'list',
        data,
        model: options.modelName,
        usage: { prompt_tokens: total, total_tokens: total },
      };
    });
  });
}

type Text = string | number[];

async function tokensOf({ tokenizer }: Model, text: Text, signal: AbortSignal): Promise<ArrayLike<number>> {
  if (typeof text !== 'string') return text;
  return joined(tokenizer.prefix, await tokenizer.encode(text, { signal }));
}

/** A text or token ids, or a list of these. */
function inputsOf(input: unknown): Text[] {
  const inputs = Array.isArray(input) && typeof input[0] !== 'number' ? input : [input];
  const isText = (text: unknown) => typeof text === 'string' || Array.isArray(text);
  if (inputs.length > 0 && inputs.length <= maxInputs && inputs.every((text) => isText(text) && text.length > 0)) {
    return inputs as Text[];
  }
  throw invalid('input', `input must be a text or token ids, or up to ${maxInputs} of these, none of them empty`);
}
