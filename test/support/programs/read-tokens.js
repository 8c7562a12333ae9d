// Reads argv[2] tokens of a long text with the default model and prints what the process then holds, as JSON.
// argv[3]: 'tokens' repeats the ids of the text's beginning, so that no tokenizer's worker runs; 'text' reads text, and
// ends the tokenizer's worker first.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const root = path.join(__dirname, '..', '..', '..');
const { load, devices } = require(root);
const { fence } = require(path.join(root, 'dist', 'tensor', 'device.js'));

const kib = (status, name) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)[1]) * 1024;

async function main() {
  const count = Number(process.argv[2]);
  const asText = process.argv[3] === 'text';
  const novel = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8');
  const model = await load({ maxSequences: 1 });
  const session = model.createSession();
  const started = performance.now();
  let usage;
  if (asText) {
    // 3.8 characters a token
    const length = Math.ceil(count * 3.8);
    usage = await session.prefill({ prompt: novel.repeat(Math.ceil(length / novel.length)).slice(0, length) });
  } else {
    const beginning = await model.tokenizer.encode(novel.slice(0, 8000));
    usage = await session.prefill({
      tokens: Int32Array.from({ length: count }, (_, i) => beginning[i % beginning.length]),
    });
  }
  const seconds = (performance.now() - started) / 1000;
  await fence('cpu');
  const { used } = devices()[0].memory();
  if (asText) {
    await new Promise((resolve) => setTimeout(resolve, 6000)); // an idle worker is ended after five seconds
    global.gc();
    await new Promise((resolve) => setTimeout(resolve, 500));
    global.gc();
  }
  const status = readFileSync('/proc/self/status', 'utf8');
  const { promptTokens } = usage;
  console.log(
    JSON.stringify({ promptTokens, seconds, used, peak: kib(status, 'VmHWM'), resident: kib(status, 'VmRSS') }),
  );
  await model.dispose();
}

main();
