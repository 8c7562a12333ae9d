// linattn generate, chat and serve --cache.
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { DirectoryStore } from '../../lib/cache/directory-store';
import { RedisStore } from '../../lib/cache/redis-store';
import { Interrupts } from '../../lib/cli/signals';
import { call, type FakeModel, fakeModel } from '../support/cli';

test.each([
  ['generate', '-p', 'Hi'],
  ['chat', '--max-tokens', '1'],
])('%s --cache keeps states in a folder', async (...args) => {
  const model = fakeModel(['Hello']);
  expect((await call(args, { model })).outcome).toEqual({ exitCode: 0 });
  expect(model.loaded[0]!.prefixCache).toBeUndefined();
  const { outcome } = await call([...args, '--cache', 'some/where'], { model });
  expect(outcome).toEqual({ exitCode: 0 });
  const { store, onStoreError } = model.loaded[1]!.prefixCache!;
  expect(store).toBeInstanceOf(DirectoryStore);
  expect(store).toMatchObject({ folder: 'some/where' });
  expect(onStoreError).toBeDefined();
});

test('a folder that cannot be read or written is a warning, which --quiet leaves out', async () => {
  for (const quiet of [false, true]) {
    const model: FakeModel = fakeModel(['Hello'], () => {
      model.loaded[0]!.prefixCache!.onStoreError!(new Error('no space left'));
    });
    const args = ['generate', '-p', 'Hi', '--cache', 'full', ...(quiet ? ['--quiet'] : [])];
    const { outcome, out, err } = await call(args, { model });
    expect(outcome).toEqual({ exitCode: 0 });
    expect(out).toContain('Hello');
    expect(err.includes('warning: --cache full: no space left')).toBe(!quiet);
  }
});

test('memory is a cache without a store, from the environment too', async () => {
  const model = fakeModel(['Hello']);
  await call(['generate', '-p', 'Hi', '--cache', 'memory'], { model });
  process.env.LINATTN_CACHE = 'memory';
  try {
    await call(['generate', '-p', 'Hi'], { model });
  } finally {
    delete process.env.LINATTN_CACHE;
  }
  expect(model.loaded.map(({ prefixCache }) => prefixCache)).toEqual([{}, {}]);
});

test('Redis that is not there is a warning that hides the password', async () => {
  const model: FakeModel = fakeModel(['Hello'], async () => {
    const { store, onStoreError } = model.loaded[0]!.prefixCache!;
    expect(store).toBeInstanceOf(RedisStore);
    await store!.keys().then(() => undefined, onStoreError); // as the cache does
  });
  // Port 1 of this machine is nobody's.
  const args = ['generate', '-p', 'Hi', '-n', '1', '--cache', 'redis://user:secret@127.0.0.1:1/0'];
  const { outcome, out, err } = await call(args, { model });
  expect({ outcome, err }).toEqual({ outcome: { exitCode: 0 }, err: expect.stringContaining('warning') });
  expect(out).toContain('Hello');
  expect(err).toContain('warning: --cache redis://127.0.0.1:1/0: connect ECONNREFUSED');
  expect(err).not.toContain('secret');
});

test('an address that is none is an error', async () => {
  const model = fakeModel(['Hello']);
  const { outcome, err } = await call(['generate', '-p', 'Hi', '--cache', 'redis://:-1'], { model });
  expect(outcome).toEqual({ exitCode: 1 });
  expect(err).toContain('ERR_ARGUMENT');
});

describe('a Redis that takes connections and says nothing', () => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined));
  }).listen(0, '127.0.0.1');
  beforeAll(() => server.listening || once(server, 'listening'));
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const args = () => ['generate', '-p', 'Hi', '--cache', `redis://127.0.0.1:${(server.address() as AddressInfo).port}`];

  test('is done without, after a while', async () => {
    const model: FakeModel = fakeModel(['Hello'], () => {
      model.loaded[0]!.prefixCache!.onStoreError!(new Error('of the client'));
    });
    const { outcome, out, err } = await call(args(), { model });
    expect({ outcome, out }).toEqual({ outcome: { exitCode: 0 }, out: 'Hello' });
    expect(err).toMatch(/^warning: --cache redis:.*: no answer in 5000 ms\n/);
  }, 30_000);

  test('keeps no interruption waiting', async () => {
    const interrupts = new Interrupts();
    setTimeout(() => interrupts.interrupt('SIGINT'), 200);
    const started = performance.now();
    expect((await call(args(), { model: fakeModel(['Hello']), interrupts })).outcome).toEqual({ signal: 'SIGINT' });
    expect(performance.now() - started).toBeLessThan(4000);
  });
});
