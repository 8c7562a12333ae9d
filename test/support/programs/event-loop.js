// Prints as JSON the longest delay of the event loop in ms: argv[2] 'work' while a prompt of about argv[3] tokens is
// tokenized and prefilled, 'idle' while as many threads as that takes are busy and JavaScript does nothing.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { monitorEventLoopDelay } = require('node:perf_hooks');
const { Worker } = require('node:worker_threads');
const root = path.join(__dirname, '..', '..', '..');
const { load } = require(root);
const { cpu } = require(path.join(root, 'dist', 'tensor', 'device.js'));

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function measured(work) {
  await pause(200);
  const delay = monitorEventLoopDelay({ resolution: 10 });
  delay.enable();
  await pause(50);
  delay.reset();
  const result = await work();
  await pause(50);
  delay.disable();
  return { ...result, maxMs: delay.max / 1e6 };
}

async function prefill(count) {
  const novel = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8');
  const length = Math.ceil(count * 3.9);
  const prompt = novel.repeat(Math.ceil(length / novel.length)).slice(0, length);
  const model = await load({ maxSequences: 1 });
  const result = await measured(async () => {
    const { promptTokens, tokenizeMs, prefillMs } = await model.createSession().prefill({ prompt });
    return { promptTokens, tokenizeMs, prefillMs };
  });
  await model.dispose();
  return result;
}

async function busy(ms) {
  const spin = 'for (;;) Math.sqrt(Math.random());';
  const workers = Array.from({ length: cpu().threads }, () => new Worker(spin, { eval: true }));
  const result = await measured(() => pause(ms));
  await Promise.all(workers.map((worker) => worker.terminate()));
  return result;
}

const [, , kind, amount] = process.argv;
(kind === 'work' ? prefill(Number(amount)) : busy(Number(amount))).then((result) =>
  console.log(JSON.stringify(result)),
);
