// Reads argv[3] tokens of the default model's novel and asks twice. argv[2] 'save': the second question goes to a fork, and
// the state is saved to argv[4]; 'resume': both go to sessions from that file. Prints the times to the first token in ms,
// and the tokens.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { load } = require(root);

const [, , kind, count, file] = process.argv;
const question = { append: '\n\nCaptain Wentworth', maxTokens: 40, temperature: 0.9, seed: 5, ignoreEos: true };

async function ask(session) {
  const { tokens, usage } = await session.generate(question).result;
  return { tokens: Array.from(tokens), ms: usage.timeToFirstTokenMs };
}

async function main() {
  const model = await load({ maxSequences: 3 });
  if (kind === 'resume') {
    const start = performance.now();
    const from = await model.loadSnapshot(file);
    const loadMs = performance.now() - start;
    const answers = [await ask(model.createSession({ from })), await ask(model.createSession({ from }))];
    console.log(JSON.stringify({ loadMs, answers }));
  } else {
    const novel = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8');
    const ids = await model.tokenizer.encode(novel);
    const tokens = Int32Array.from({ length: Number(count) }, (_, i) => ids[i % ids.length]);
    const session = model.createSession();
    const { prefillMs } = await session.prefill({ tokens });
    const fork = await session.fork();
    const snapshot = await session.snapshot();
    await snapshot.save(file);
    const answers = [await ask(session), await ask(fork)];
    console.log(JSON.stringify({ prefillMs, answers, bytes: snapshot.byteLength }));
  }
  await model.dispose();
}
main();
