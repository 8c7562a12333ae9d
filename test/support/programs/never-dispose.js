// Disposes nothing: what keeps the process is the generation alone. Prints as JSON what came and when (Unix time, ms).
const { readFileSync } = require('node:fs');
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { load } = require(root);

load().then((model) => {
  // Long enough that the tokenizer's worker encodes it.
  const prompt = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8').slice(0, 20_000);
  model.generate({ prompt, maxTokens: 20, ignoreEos: true }).result.then(({ tokens }) => {
    console.log(JSON.stringify({ tokens: tokens.length, at: Date.now() }));
  });
});
