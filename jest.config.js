// The short tier of tests: all but *.long.test.ts, which jest.long.config.js adds.
// Not a .ts file: on Node 20 jest would need ts-node to read it.

/** @type {import('jest').Config} */
module.exports = {
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  testPathIgnorePatterns: ['\\.long\\.test\\.ts$', '/test/cuda/'],
  testEnvironment: 'node',
  transform: { '\\.m?ts$': 'ts-jest' }, // no type check: tsconfig.json has isolatedModules, npm run typecheck does it
  testTimeout: 60_000,
};
