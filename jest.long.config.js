// The long tier of tests: builds, packaging, soak and fuzz.

/** @type {import('jest').Config} */
module.exports = {
  ...require('./jest.config.js'),
  testMatch: ['**/*.long.test.ts'],
  testPathIgnorePatterns: [],
  testTimeout: 900_000,
};
