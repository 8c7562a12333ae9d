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
  setupFilesAfterEnv: ['<rootDir>/test/support/equal-arrays.ts'],
  // Where a test's sandbox is searched for a global at each use, loops over numbers take twice as long.
  sandboxInjectedGlobals: ['Math', 'Number', 'Array', 'Float32Array', 'Float64Array', 'Uint32Array'],
};
