// Asks questions about the first argv[3] tokens of the default model's novel, each in a session of its own that is given
// the whole text. The prefix cache has its store in the folder argv[2], or at the Redis socket argv[2]. The questions are
// the rest of argv; prints for each the time to the first token, the counts of tokens, and what was written.
const { readFileSync, statSync } = require('node:fs');
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { load, DirectoryStore, RedisStore } = require(root);

const [, , place, count, ...questions] = process.argv;

async function main() {
  const isSocket = statSync(place, { throwIfNoEntry: false })?.isSocket() ?? false;
  const client = isSocket ? new (require('ioredis'))({ path: place }) : undefined;
  const store = client ? new RedisStore(client) : new DirectoryStore(place);
  const model = await load({ maxSequences: 3, prefixCache: { store } });
  const novel = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8');
  const ids = await model.tokenizer.encode(novel);
  const answers = [];
  for (const question of questions) {
    const tokens = Int32Array.of(...ids.subarray(0, Number(count)), ...(await model.tokenizer.encode(question)));
    const options = { maxTokens: 20, temperature: 0.9, seed: 5, ignoreEos: true };
    const { tokens: written, usage } = await model.generate({ tokens, ...options }).result;
    const { timeToFirstTokenMs: ms, cachedTokens, promptTokens } = usage;
    answers.push({ ms, cachedTokens, promptTokens, tokens: Array.from(written) });
  }
  await model.dispose();
  client?.disconnect();
  console.log(JSON.stringify(answers));
}
main();
