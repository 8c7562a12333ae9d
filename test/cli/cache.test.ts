// linattn generate and chat --cache.
import { DirectoryStore } from '../../lib/cache/directory-store';
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
