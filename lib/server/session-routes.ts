// /v1/sessions: what was read stays; a session can be forked, saved, and restored here or by another process.
import path from 'node:path';
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { LinattnError } from '../errors';
import type { SerializeOptions, SnapshotSource } from '../index';
import { stateDTypes } from '../state/state-dtype';
import { ApiError, invalid } from './api-error';
import { Fields } from './fields';
import type { Service } from './service';
import type { SessionObject } from './sessions';

type ById = FastifyRequest<{ Params: { id: string } }>;

const octets = 'application/octet-stream';

export function addSessionRoutes(app: FastifyInstance, service: Service): void {
  const { model, options, work, sessions } = service;
  app.post('/v1/sessions', async () => sessions.add(() => model.createSession()));
  app.get('/v1/sessions/:id', async ({ params }: ById) => sessions.describe(params.id));
  app.delete('/v1/sessions/:id', async ({ params: { id } }: ById) => {
    await sessions.delete(id);
    return { id, object: 'session', deleted: true };
  });
  app.post('/v1/sessions/:id/fork', async ({ params }: ById, reply) =>
    sessions.use(params.id, (session) => work.run(reply.raw, (signal) => sessions.add(() => session.fork(), signal))),
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
          await snapshot.save(file, { ...serialize, signal }).catch(asNoFile);
          return { ...sessions.describe(id), file: name };
        } finally {
          snapshot.dispose();
        }
      }),
    );
  });
  // Only here a body may be no JSON: a state is read as it comes, by loadSnapshot, which knows how long it can be.
  app.register(async (restoring) => {
    restoring.addContentTypeParser(octets, (_, payload, done) => done(null, payload));
    restoring.post('/v1/sessions/restore', (request, reply) => restore(service, request, reply));
  });
}

async function restore(
  { model, options, work, sessions }: Service,
  { body }: FastifyRequest,
  { raw }: FastifyReply,
): Promise<SessionObject> {
  const restored = (source: SnapshotSource) =>
    work.run(raw, (signal) =>
      sessions.add(async () => {
        const snapshot = await model.loadSnapshot(source, { signal });
        try {
          return model.createSession({ from: snapshot });
        } finally {
          snapshot.dispose();
        }
      }, signal),
    );
  if (body instanceof Readable) {
    try {
      return await restored(body.iterator({ destroyOnReturn: false }));
    } finally {
      body.resume(); // what is left of a wrong state: the connection is used again behind it
    }
  }
  const name = new Fields(body).string('file');
  if (name === undefined) throw invalid('file', `file must be given, or the bytes of a state as ${octets}`);
  const file = pathOf(options.stateFolder, name);
  return restored(file).catch(asNoState(file, name));
}

function serializeOptions(fields: Fields): SerializeOptions {
  const stateDtype = fields.choice('state_dtype', stateDTypes);
  const tokens = fields.choice('tokens', ['full', 'hash']);
  return { ...(stateDtype !== undefined && { stateDtype }), ...(tokens !== undefined && { tokens }) };
}

/** A file of the folder for states, never one outside it. */
function pathOf(folder: string | undefined, name: string): string {
  if (folder === undefined) throw new ApiError(400, 'no_state_folder', 'the server keeps no files of states', 'file');
  if (!/^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$/.test(name)) {
    throw invalid('file', 'file must be a plain name: letters, digits, dots, dashes and underscores');
  }
  return path.join(folder, name);
}

/** A failure of restoring: what the client has a part in names the file as it does. */
function asNoState(file: string, name: string): (error: unknown) => never {
  return (error) => {
    if (!LinattnError.isInstance(error)) throw error;
    const { code, message } = error;
    const cause = (error.cause as NodeJS.ErrnoException | undefined)?.code;
    if (cause === 'ENOENT' || cause === 'EISDIR') {
      throw new ApiError(404, 'file_not_found', 'there is no such file of a state', 'file');
    }
    if (!code.startsWith('ERR_SNAPSHOT')) throw error;
    throw new ApiError(
      400,
      code,
      message.replaceAll(file, () => name),
      'file',
    );
  };
}

/** What is in the place of the file is none. */
function asNoFile(error: unknown): never {
  if (!LinattnError.isInstance(error) || error.code !== 'ERR_FILE' || error.cause !== undefined) throw error;
  throw invalid('file', 'file must be the name of a file, or of none yet, it is that of something else');
}
