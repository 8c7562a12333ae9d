// The ESM entry: the same copy as require('linattn').
export * from './index.js';
