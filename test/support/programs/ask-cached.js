// Asks two questions about argv[3] tokens of the default model's novel, each in a session of its own that is given the whole
// text: what is not read twice is in the prefix cache, and in the folder argv[2]. Prints for each the times and what was cached.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { load, DirectoryStore } = require(root);

const [, , folder, count] = process.argv;

async function main() {
  const model = await load({ maxSequences: 3, prefixCache: { store: new DirectoryStore(folder) } });
  const novel = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8');
  const ids = await model.tokenizer.encode(novel);
  const answers = [];
  for (const question of ['\n\nCaptain Wentworth', '\n\nIn the end Anne']) {
    const tokens = Int32Array.of(...ids.subarray(0, count), ...(await model.tokenizer.encode(question)));
    const options = { maxTokens: 20, temperature: 0.9, seed: 5, ignoreEos: true };
    const { tokens: written, usage } = await model.generate({ tokens, ...options }).result;
    const { timeToFirstTokenMs: ms, cachedTokens, promptTokens } = usage;
    answers.push({ ms, cachedTokens, promptTokens, tokens: Array.from(written) });
  }
  await model.dispose();
  console.log(JSON.stringify(answers));
}
main();
