import { encodeSampling, tokenWords } from '../../lib/ops/sampling-table';
import { errorOf } from '../support/close';

test('the layout of a row', () => {
  const sampling = { temperature: 0.5, topK: 20, topP: 0.25, minP: 0.125, repetitionPenalty: 1.5, restricted: true };
  const { params, intParams } = encodeSampling({ ...sampling, seed: 5 * 2 ** 32 + 2 ** 31 });
  expect(Array.from(params)).toEqual([0.5, 0.25, 0.125, 1.5, 0, 0, 0, 0]);
  expect(Array.from(intParams)).toEqual([20, -(2 ** 31), 5, 1, 0, 0, 0, 0]);
});

test('everything is off by default', () => {
  const { params, intParams } = encodeSampling({});
  expect(Array.from(params)).toEqual([1, 1, 0, 1, 0, 0, 0, 0]);
  expect(Array.from(intParams)).toEqual(new Array(8).fill(0));
});

test('words of a set of tokens', () => {
  expect([1, 32, 33, 248320].map(tokenWords)).toEqual([1, 1, 2, 7760]);
});

test.each([
  { temperature: -1 },
  { temperature: Number.NaN },
  { topK: 1.5 },
  { topK: -1 },
  { topP: 1.1 },
  { minP: -0.1 },
  { repetitionPenalty: 0 },
  { seed: -1 },
  { seed: 2 ** 53 },
])('sampling %j', (sampling) => {
  const name = Object.keys(sampling)[0]!;
  expect(errorOf(() => encodeSampling(sampling))).toMatchObject({
    code: 'ERR_ARGUMENT',
    message: expect.stringContaining(`sampling: ${name} must be`),
  });
});
