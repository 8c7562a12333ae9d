// The HTTP server: a model behind OpenAI's endpoints, with sessions, metrics and a page to try it on.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import type { Model } from '../index';
import { accessCheck } from './access';
import { Admission } from './admission';
import { ApiError, draining } from './api-error';
import { addCompletionRoutes } from './completions';
import { addEmbeddingRoute } from './embeddings';
import { failed } from './failures';
import { seconds } from './forms';
import { addJsonParser } from './json-body';
import { answerMalformed } from './malformed-request';
import type { ServerOptions } from './options';
import { ServerMetrics } from './server-metrics';
import type { Service } from './service';
import { addSessionRoutes } from './session-routes';
import { Sessions } from './sessions';
import { Work } from './work';

/** The page is one file and speaks to its own server only. */
const pagePolicy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
/** Time for a client to send the whole of its request. */
const requestMs = 120_000;
/** Time for clients to take their answers, after the last one has been written. */
const lingerMs = 2000;

export class Server {
  private readonly app: FastifyInstance;
  private readonly service: Service;
  private isDraining = false;

  /** The model stays its owner's, and must have been loaded with `sequencesOf(options)` sequences. */
  constructor(model: Model, options: ServerOptions) {
    const work = new Work(new Admission(options.maxConcurrency, options.maxQueue));
    const sessions = new Sessions(model, options.maxSessions, options.sessionTtlMs);
    const metrics = new ServerMetrics(model, work.admission, sessions);
    this.service = { model, options, work, sessions, metrics, started: seconds() };
    this.app = fastify({
      bodyLimit: options.maxBodyBytes,
      requestTimeout: requestMs,
      forceCloseConnections: 'idle',
      return503OnClosing: false, // the hook below says it in OpenAI's form
      clientErrorHandler: answerMalformed,
      frameworkErrors: (error, _, reply) => this.refuse(reply, error), // of a URL that cannot be decoded
    });
    addJsonParser(this.app);
    this.app.removeContentTypeParser('text/plain'); // what browsers send across origins without asking
    this.addHooks();
    this.addRoutes();
  }

  private addHooks(): void {
    const { app, service } = this;
    const { metrics } = service;
    const check = accessCheck(service.options);
    const open = ['/', '/health'];
    app.addHook('onRequest', async (request, reply) => {
      const route = request.routeOptions.url ?? 'none';
      const { raw } = reply;
      raw.once('close', () => {
        metrics.requests.add(1, { route, status: raw.writableFinished ? raw.statusCode : 499 });
      });
      if (this.isDraining) throw draining();
      if (!open.includes(route)) check(request);
    });
    app.setErrorHandler((error, _, reply) => this.refuse(reply, error));
    app.setNotFoundHandler((request, reply) =>
      this.refuse(reply, new ApiError(404, 'unknown_url', `there is no ${request.method} ${request.url}`)),
    );
  }

  private refuse(reply: FastifyReply, error: unknown): FastifyReply {
    const failure = failed(this.service, error);
    if (failure.status === 503) void reply.header('connection', 'close');
    if (failure.status === 429 || failure.status === 503) void reply.header('retry-after', '1');
    if (failure.status === 401) void reply.header('www-authenticate', 'Bearer');
    return reply.code(failure.status).send(failure.body);
  }

  private addRoutes(): void {
    const { app, service } = this;
    const { model, options, work, metrics, started } = service;
    const page = readFileSync(path.join(__dirname, 'playground.html'));
    app.get('/', (_, reply) =>
      reply.type('text/html; charset=utf-8').header('content-security-policy', pagePolicy).send(page),
    );
    app.get('/health', async () => {
      const { running, waiting } = work.admission;
      return { status: 'ok', model: options.modelName, running, waiting };
    });
    app.get('/metrics', (_, reply) => reply.type('text/plain; version=0.0.4; charset=utf-8').send(metrics.text()));
    const served = {
      ...{ id: options.modelName, object: 'model', created: started, owned_by: 'linattn' },
      linattn: { ...model.info, max_prompt_tokens: options.maxPromptTokens, chat: hasChat(model) },
    };
    app.get('/v1/models', async () => ({ object: 'list', data: [served] }));
    app.get<{ Params: { id: string } }>('/v1/models/:id', async ({ params: { id } }) => {
      if (id === served.id) return served;
      throw new ApiError(404, 'model_not_found', `there is no model ${id}`, 'model');
    });
    addCompletionRoutes(app, service);
    addEmbeddingRoute(app, service);
    addSessionRoutes(app, service);
  }

  /** Resolves with the address, http://host:port. */
  async listen(): Promise<string> {
    const { host, port } = this.service.options;
    return this.app.listen({ host, port });
  }

  /**
   * Stops listening and refuses what waits with 503; what runs may end within `limitMs`, then it is aborted. Resolves
   * when all connections are closed and the sessions are gone.
   */
  async drain(limitMs: number): Promise<void> {
    this.isDraining = true;
    const closed = this.app.close();
    await this.service.work.drain(limitMs);
    const { server } = this.app;
    const idle = setInterval(() => server.closeIdleConnections(), 20);
    const late = setTimeout(() => server.closeAllConnections(), lingerMs);
    await closed;
    clearInterval(idle);
    clearTimeout(late);
    await this.service.sessions.dispose();
  }
}

function hasChat(model: Model): boolean {
  try {
    return model.tokenizer.hasChatTemplate;
  } catch {
    return false; // no tokenizer.json
  }
}
