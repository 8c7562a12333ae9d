// The ESM entry: the same copy as require('linattn/ai-sdk').
export * from './index.js';
