// The tests of ops, tensors, layers, models, states and generation on the first CUDA device; without one, they fail.

process.env.LINATTN_DEVICE = 'cuda';

/** @type {import('jest').Config} */
module.exports = {
  ...require('./jest.config.js'),
  testPathIgnorePatterns: ['\\.long\\.test\\.ts$'],
  maxWorkers: 2, // a model takes a quarter of the GPU's memory for its pages
  testMatch: ['ops', 'tensor', 'layers', 'model', 'state', 'generation', 'cuda'].map(
    (part) => `**/test/${part}/**/*.test.ts`,
  ),
};
