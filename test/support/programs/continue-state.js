// Goes on from the state in argv[3] with the model in argv[2], on the device LINATTN_DEVICE: reads the tokens of argv[4]
// (JSON) and writes 12 more. Prints the tokens, their log-probabilities, and the logits at the end.
const path = require('node:path');
const { load } = require(path.join(__dirname, '..', '..', '..'));

async function main() {
  const [folder, file, append] = process.argv.slice(2);
  const model = await load({ model: folder, maxSequences: 1 });
  const from = await model.loadSnapshot(file);
  const session = model.createSession({ from });
  const options = { maxTokens: 12, temperature: 0.8, seed: 5, ignoreEos: true };
  const run = session.generate({ append: Int32Array.from(JSON.parse(append)), ...options });
  const chunks = [];
  for await (const { token, logprob } of run) chunks.push([token, logprob]);
  console.log(JSON.stringify({ chunks, logits: Array.from(await session.logits()) }));
  await model.dispose();
}
main();
