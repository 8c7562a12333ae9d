// linattn's side of with_transformers.py: node generate.mjs FOLDER, then one JSON request a line on stdin, one JSON answer a line
// on stdout.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(import.meta.url);
const { load } = require('../../dist/index.js');

const model = await load({
  model: process.argv[2],
  device: 'cuda',
  dtype: 'bfloat16',
  maxSequences: 1,
  maxSnapshots: 0,
});

/** The same numbers as prompt() of with_transformers.py. */
function prompt(length) {
  let state = 1;
  return Int32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 16;
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const { tokens, count } = JSON.parse(line);
  const ids = prompt(tokens);
  const begin = performance.now();
  let [first, firstAt, last] = [-1, 0, 0];
  for await (const { token } of model.generate({ tokens: ids, maxTokens: count, temperature: 0, ignoreEos: true })) {
    last = performance.now();
    if (firstAt === 0) [first, firstAt] = [token, last];
  }
  const tokenMs = count > 1 ? (last - firstAt) / (count - 1) : undefined;
  process.stdout.write(`${JSON.stringify({ first, firstMs: firstAt - begin, tokenMs })}\n`);
}
await model.dispose();
