// A Redis server of the tests' own, on a free port and on a socket in a temporary folder, where redis-server is installed.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import Redis from 'ioredis';

const isInstalled = spawnSync('redis-server', ['--version']).status === 0;

/** describe, or a skip that says why. */
export function describeWithRedis(name: string, tests: () => void): void {
  if (isInstalled) describe(name, tests);
  else describe.skip(`${name}: redis-server is not installed`, tests);
}

export interface RedisServer {
  readonly socket: string;
  /** redis://127.0.0.1:port */
  readonly url: string;
  client(): Redis;
  /** Ends the clients and the server. */
  stop(): Promise<void>;
}

/** One beside which there is room for that of a cluster's bus, 10,000 above. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port < 55_000 ? port : freePort();
}

/** A server that has its socket; none where another process has taken the port meanwhile. */
async function listening(folder: string, port: number, options: readonly string[]): Promise<ChildProcess | undefined> {
  const socket = path.join(folder, 'socket');
  const where = ['--bind', '127.0.0.1', '--port', String(port), '--unixsocket', socket];
  const args = [...where, '--save', '', '--appendonly', 'no', '--dir', folder, ...options];
  const server = spawn('redis-server', args, { stdio: 'ignore' });
  while (!existsSync(socket)) {
    if (server.exitCode !== null) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return server;
}

export async function startRedis(...options: string[]): Promise<RedisServer> {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-redis-'));
  const socket = path.join(folder, 'socket');
  let port = await freePort();
  let server = await listening(folder, port, options);
  for (let tries = 1; server === undefined; tries++) {
    if (tries === 5) throw new Error('redis-server does not start');
    port = await freePort();
    server = await listening(folder, port, options);
  }
  const started = server;
  const exited = once(started, 'exit');
  const clients: Redis[] = [];
  return {
    socket,
    url: `redis://127.0.0.1:${port}`,
    client() {
      const client = new Redis({ path: socket });
      client.on('error', () => undefined); // tests stop the server under it
      clients.push(client);
      return client;
    },
    async stop() {
      for (const client of clients) client.disconnect();
      started.kill();
      await exited;
      rmSync(folder, { recursive: true });
    },
  };
}
