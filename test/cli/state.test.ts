// linattn generate --state and --save-state.
import { call, fakeModel } from '../support/cli';

test('--state goes on behind what the state has read, --save-state saves after the text', async () => {
  const model = fakeModel(['Hi']);
  const args = ['generate', '--state', 'some\n', '-p', 'Why?', '--save-state', 'next'];
  expect(await call(args, { model })).toMatchObject({ outcome: { exitCode: 0 }, out: 'Hi' });
  expect(model.asked).toMatchObject([{ append: '\nWhy?' }]);
  expect(model.saved).toEqual(['next']);
  const { outcome, err } = await call(['generate', '--state', 'a', '--chat', '-p', 'b'], { model });
  expect(outcome).toEqual({ exitCode: 2 });
  expect(err).toContain("'--state' and '--chat'");
});
