// A server in this process, on a port that is free, and clients of it.
import OpenAI from 'openai';
import { load } from '../../lib/generation/load';
import type { Model } from '../../lib/generation/model';
import { type ServerOptions, sequencesOf, serverDefaults } from '../../lib/server/options';
import { Server } from '../../lib/server/server';

export interface Served {
  readonly url: string;
  readonly model: Model;
  readonly server: Server;
  /** The official client, as it is, but that it tries nothing again. */
  readonly client: OpenAI;
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  metric(name: string): Promise<number>;
  close(): Promise<void>;
}

/** `folder`: without one, the default model. */
export async function serve(options: Partial<ServerOptions> = {}, folder?: string): Promise<Served> {
  const all: ServerOptions = { ...serverDefaults, port: 0, modelName: 'test', maxSessions: 4, ...options };
  const model = await load({ ...(folder !== undefined && { model: folder }), maxSequences: sequencesOf(all) });
  const server = new Server(model, all);
  const url = await server.listen();
  const key = all.apiKey === undefined ? {} : { authorization: `Bearer ${all.apiKey}` };
  return {
    ...{ url, model, server },
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey: all.apiKey ?? 'none', maxRetries: 0 }),
    post: (path, body, init = {}) =>
      fetch(url + path, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...init,
        headers: { 'content-type': 'application/json', ...key, ...init.headers },
      }),
    async metric(name) {
      const text = await (await fetch(`${url}/metrics`, { headers: key })).text();
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
      return line === undefined ? Number.NaN : Number(line.slice(name.length + 1));
    },
    async close() {
      await server.drain(0);
      await model.dispose();
    },
  };
}

/** Resolves when `holds` does; fails after `limitMs`. */
export async function until(holds: () => Promise<boolean> | boolean, limitMs = 30_000): Promise<void> {
  for (const start = performance.now(); !(await holds()); ) {
    if (performance.now() - start > limitMs) throw new Error(`it did not come true within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
