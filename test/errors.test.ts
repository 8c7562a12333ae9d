// The one error class.
import { runInNewContext } from 'node:vm';
import { LinattnError, linattnError } from '../lib/errors';

test('has an op only where one is known', () => {
  expect('op' in linattnError('ERR_FILE', 'load: no file')).toBe(false);
  expect(linattnError('ERR_SHAPE', 'rmsNorm: x must be [T, C]', { op: 'rmsNorm' })).toMatchObject({ op: 'rmsNorm' });
});

test('is told by its brand, also that of another copy or realm', () => {
  const error = linattnError('ERR_FILE', 'load: no file', { cause: 'x' });
  expect(error).toMatchObject({ name: 'LinattnError', code: 'ERR_FILE', message: 'load: no file', cause: 'x' });
  expect(LinattnError.isInstance(error)).toBe(true);
  const foreign = runInNewContext("Object.assign(new Error('a'), { [Symbol.for('linattn.error')]: true })");
  expect(LinattnError.isInstance(foreign)).toBe(true);
  for (const other of [new Error('a'), null, undefined, 'ERR_FILE', { code: 'ERR_FILE' }]) {
    expect(LinattnError.isInstance(other)).toBe(false);
  }
});
