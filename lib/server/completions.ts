// POST /v1/completions and /v1/chat/completions, as one answer or as events.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { GenerateOptions, Generation, Session } from '../index';
import { EventStream } from './event-stream';
import { failed } from './failures';
import { Fields } from './fields';
import { chatForm, completionForm, type Form } from './forms';
import { checkModel, type GenerationRequest, readGeneration } from './generation-request';
import { type PromptInput, type PromptReader, readChat, readTextPrompt } from './prompts';
import type { Service } from './service';

export function addCompletionRoutes(app: FastifyInstance, service: Service): void {
  const route = (read: PromptReader, form: typeof completionForm) => (request: FastifyRequest, reply: FastifyReply) =>
    complete(service, read, form, request, reply);
  const early = { onRequest: async () => service.work.admission.checkRoom() }; // before the body is read
  app.post('/v1/completions', early, route(readTextPrompt, completionForm));
  app.post('/v1/chat/completions', early, route(readChat, chatForm));
}

async function complete(
  service: Service,
  read: PromptReader,
  formOf: typeof completionForm,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<unknown> {
  const { options, work, sessions } = service;
  const arrived = performance.now() - reply.elapsedTime;
  const fields = new Fields(request.body);
  checkModel(fields, options.modelName);
  const asked = readGeneration(fields, options.maxCompletionTokens);
  const form = formOf(options.modelName, asked.includeUsage);
  const answer = (session: Session | undefined) =>
    work.run(reply.raw, async (signal) => {
      const input = await read(service, fields, session, signal);
      const begin = (more: GenerateOptions) => start(service, session, input, { ...asked.options, signal, ...more });
      if (asked.stream) return stream(service, form, asked, begin, reply, arrived);
      const generation = begin({});
      await measured(service, generation, arrived, () => undefined);
      const result = await generation.result;
      service.metrics.count(result.usage);
      return form.whole(result);
    });
  return asked.session === undefined ? answer(undefined) : sessions.use(asked.session, answer);
}

function start(
  { model }: Service,
  session: Session | undefined,
  input: PromptInput,
  options: GenerateOptions,
): Generation {
  if (session !== undefined) return session.generate({ ...input, ...options });
  return model.generate({ tokens: [], ...input, ...options });
}

/** Hands on every text as it comes. */
async function measured(
  { metrics }: Service,
  generation: Generation,
  arrived: number,
  onText: (text: string) => void,
): Promise<void> {
  let last = arrived;
  let histogram = metrics.firstToken;
  for await (const { text } of generation) {
    const now = performance.now();
    histogram.observe((now - last) / 1000);
    histogram = metrics.token;
    last = now;
    if (text !== '') onText(text);
  }
}

async function stream(
  service: Service,
  form: Form,
  { includeUsage }: GenerationRequest,
  begin: (options: GenerateOptions) => Generation,
  reply: FastifyReply,
  arrived: number,
): Promise<void> {
  let events: EventStream | undefined;
  // What is wrong with the options throws here, while a status can still say so.
  const generation = begin({
    onPrefillProgress: (progress) => events?.note({ prefill: progress }, progress.done === progress.total),
  });
  reply.hijack();
  events = new EventStream(reply.raw);
  try {
    const opening = form.opening();
    if (opening !== undefined) events.send(opening);
    await measured(service, generation, arrived, (text) => events.send(form.piece(text)));
    const { finishReason, usage } = await generation.result;
    service.metrics.count(usage);
    events.send(form.closing(finishReason));
    if (includeUsage) events.send(form.usage(usage));
    events.send('[DONE]');
  } catch (error) {
    events.send(failed(service, error).body);
  }
  events.end();
}
