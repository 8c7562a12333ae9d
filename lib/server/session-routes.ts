// /v1/sessions: what was read stays; a session can be forked, saved, and restored here or by another process.
import path from 'node:path';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { LinattnError } from '../errors';
import type { SerializeOptions, SnapshotSource } from '../index';
import { ApiError, invalid } from './api-error';
import { Fields } from './fields';
import type { Service } from './service';

type ById = FastifyRequest<{ Params: { id: string } }>;

const octets = 'application/octet-stream';

export function addSessionRoutes(app: FastifyInstance, service: Service): void {
  const { model, options, work, sessions } = service;
  // A state is read as it comes, by loadSnapshot, which knows how long it can be.
  app.addContentTypeParser(octets, (_, payload, done) => done(null, payload));

  app.post('/v1/sessions', async () => sessions.add(() => model.createSession()));
  app.get('/v1/sessions/:id', async ({ params }: ById) => sessions.describe(params.id));
  app.delete('/v1/sessions/:id', async ({ params: { id } }: ById) => {
    await sessions.delete(id);
    return { id, object: 'session', deleted: true };
  });
  app.post('/v1/sessions/:id/fork', async ({ params }: ById, reply) =>
    sessions.use(params.id, (session) => work.run(reply.raw, () => sessions.add(() => session.fork()))),
  );
  app.post('/v1/sessions/:id/save', async ({ params: { id }, body }: ById, reply) => {
    const fields = new Fields(body ?? {});
    const name = fields.string('file');
    const file = name === undefined ? undefined : pathOf(options.stateFolder, name);
    const serialize = serializeOptions(fields);
    return sessions.use(id, (session) =>
      work.run(reply.raw, async (signal) => {
        const snapshot = await session.snapshot();
        try {
          if (file === undefined) {
            reply.type(octets);
            return Buffer.from(await snapshot.serialize({ ...serialize, signal }));
          }
          await snapshot.save(file, { ...serialize, signal });
          return { ...sessions.describe(id), file: name };
        } finally {
          snapshot.dispose();
        }
      }),
    );
  });
  app.post('/v1/sessions/restore', async (request, reply) => {
    const source = sourceOf(options.stateFolder, request);
    return work.run(reply.raw, (signal) =>
      sessions.add(async () => {
        const snapshot = await model.loadSnapshot(source, { signal }).catch(asNotFound);
        try {
          return model.createSession({ from: snapshot });
        } finally {
          snapshot.dispose();
        }
      }),
    );
  });
}

function serializeOptions(fields: Fields): SerializeOptions {
  const [stateDtype, tokens] = [fields.string('state_dtype'), fields.string('tokens')];
  return {
    ...(stateDtype !== undefined && { stateDtype }),
    ...(tokens !== undefined && { tokens }),
  } as SerializeOptions;
}

function sourceOf(folder: string | undefined, { body }: FastifyRequest): SnapshotSource {
  if (typeof body === 'object' && body !== null && Symbol.asyncIterator in body)
    return body as AsyncIterable<Uint8Array>;
  const name = new Fields(body).string('file');
  if (name === undefined) throw invalid('file', `file must be given, or the bytes of a state as ${octets}`);
  return pathOf(folder, name);
}

/** A file of the folder for states, never one outside it. */
function pathOf(folder: string | undefined, name: string): string {
  if (folder === undefined) throw new ApiError(400, 'no_state_folder', 'the server keeps no files of states', 'file');
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$/.test(name)) {
    throw invalid('file', 'file must be a plain name: letters, digits, dots, dashes and underscores');
  }
  return path.join(folder, name);
}

function asNotFound(error: unknown): never {
  const cause = (error as Error).cause as NodeJS.ErrnoException | undefined;
  if (!LinattnError.isInstance(error) || cause?.code !== 'ENOENT') throw error;
  throw new ApiError(404, 'file_not_found', 'there is no such file of a state', 'file');
}
