// jest.cuda.config.js with a new worker for each file: a process keeps the device memory it had for its own next tensors.
const path = require('node:path');

/** @type {import('jest').Config} */
module.exports = {
  ...require('../../jest.cuda.config.js'),
  rootDir: path.join(__dirname, '..', '..'),
  workerIdleMemoryLimit: 0,
};
