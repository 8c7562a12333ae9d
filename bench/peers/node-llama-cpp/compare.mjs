// linattn and node-llama-cpp on the CPU, each with a bfloat16 model of 17.8 M parameters (ours: the default model; theirs:
// the Llama of make-gguf.py): a second turn on a long document, the same after its state was read from a file, and tokens
// per second of 16 sequences that decode together.
//
//   npm install --omit=optional --ignore-scripts     (in this folder)
//   node compare.mjs --gguf llama-17.8m.gguf [--tokens 16384] [--threads 2] [--runs 3] [--out record.json]
//
// Each run is a process of its own, ours and theirs in turns. Both sides get the same token ids and take the most probable
// token. A turn is 64 tokens; its time runs from the call to the first token of the answer.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    gguf: { type: 'string' },
    tokens: { type: 'string', default: '16384' },
    threads: { type: 'string', default: '2' },
    runs: { type: 'string', default: '3' },
    out: { type: 'string' },
    side: { type: 'string' }, // ours or theirs: this is the process of one run
  },
});
const [documentTokens, threads, runs] = [values.tokens, values.threads, values.runs].map(Number);
const [turnTokens, sequences, decoded] = [64, 16, 64];

function someTokens(count, seed) {
  let x = (seed + 1) * 2_654_435_761;
  return Array.from({ length: count }, () => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    return 1 + ((x >>> 8) % 8000);
  });
}
const document = someTokens(documentTokens, 0);
const turns = [1, 2, 3].map((seed) => someTokens(turnTokens, seed));
const prompts = Array.from({ length: sequences }, (_, i) => someTokens(turnTokens, 10 + i));

async function timed(work) {
  const from = performance.now();
  const result = await work();
  return { ms: performance.now() - from, result };
}

/** Tokens per second of all sequences between the first token of the slowest and the end of the fastest. */
async function decodeRate(streams) {
  let [total, waiting] = [0, streams.length];
  let from;
  let to;
  const consume = async (stream) => {
    let count = 0;
    for await (const token of stream) {
      if (token === undefined) throw new Error('no token');
      total++;
      if (++count === 1 && --waiting === 0) from = { ms: performance.now(), total };
      if (count === decoded) {
        to ??= { ms: performance.now(), total };
        break;
      }
    }
    if (count !== decoded) throw new Error(`a sequence ended after ${count} tokens`);
  };
  await Promise.all(streams.map(consume));
  if (from === undefined || to.ms <= from.ms) throw new Error('the sequences did not decode together');
  return ((to.total - from.total) * 1000) / (to.ms - from.ms);
}

async function ours(folder) {
  const { load } = createRequire(import.meta.url)('../../../dist/index.js');
  const model = await load({ device: 'cpu', threads, maxSequences: sequences });
  const choice = { maxTokens: 1, temperature: 0, ignoreEos: true };
  await model.generate({ tokens: prompts[0], ...choice }).result;
  const session = model.createSession();
  const first = await timed(() => session.generate({ tokens: [...document, ...turns[0]], ...choice }).result);
  const second = await timed(() => session.generate({ append: turns[1], ...choice }).result);
  const file = path.join(folder, 'state');
  const snapshot = await session.snapshot();
  await snapshot.save(file);
  snapshot.dispose();
  await session.dispose();
  const restored = await timed(async () => {
    const from = await model.loadSnapshot(file);
    const again = model.createSession({ from });
    await again.generate({ append: turns[2], ...choice }).result;
    return again;
  });
  await restored.result.dispose();
  const options = { temperature: 0, ignoreEos: true, maxTokens: decoded };
  const tokensPerSecond = await decodeRate(prompts.map((tokens) => model.generate({ tokens, ...options })));
  const stateFileBytes = statSync(file).size;
  await model.dispose();
  return { firstMs: first.ms, secondMs: second.ms, restoredMs: restored.ms, stateFileBytes, tokensPerSecond };
}

async function theirs(folder) {
  const { getLlama } = await import('node-llama-cpp');
  const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error', maxThreads: threads });
  const model = await llama.loadModel({ modelPath: path.resolve(values.gguf) });
  const options = { temperature: 0, yieldEogToken: true };
  const firstToken = async (sequence, tokens) => {
    for await (const token of sequence.evaluate(tokens, options)) return token;
    throw new Error('no token');
  };
  const long = await model.createContext({ contextSize: documentTokens + 512, threads, batchSize: 512 });
  const sequence = long.getSequence();
  await firstToken(sequence, prompts[0]);
  await sequence.clearHistory();
  const first = await timed(() => firstToken(sequence, [...document, ...turns[0]]));
  const second = await timed(() => firstToken(sequence, turns[1]));
  const file = path.join(folder, 'state');
  const { fileSize } = await sequence.saveStateToFile(file);
  await sequence.clearHistory();
  const restored = await timed(async () => {
    await sequence.loadStateFromFile(file, { acceptRisk: true });
    return firstToken(sequence, turns[2]);
  });
  if (sequence.nextTokenIndex < documentTokens) throw new Error('the state was not restored');
  await long.dispose();
  const context = await model.createContext({ contextSize: 256, sequences, threads, batchSize: 1024 });
  const tokensPerSecond = await decodeRate(prompts.map((tokens) => context.getSequence().evaluate(tokens, options)));
  await llama.dispose();
  return { firstMs: first.ms, secondMs: second.ms, restoredMs: restored.ms, stateFileBytes: fileSize, tokensPerSecond };
}

if (values.side !== undefined) {
  const folder = mkdtempSync(path.join(tmpdir(), 'linattn-compare-'));
  try {
    console.log(JSON.stringify(await { ours, theirs }[values.side](folder)));
  } finally {
    rmSync(folder, { recursive: true });
  }
} else {
  const all = { ours: [], theirs: [] };
  const load = [];
  for (let run = 0; run < runs; run++) {
    for (const side of ['ours', 'theirs']) {
      load.push(loadavg()[0]);
      const flags = ['--tokens', values.tokens, '--threads', values.threads, '--gguf', values.gguf, '--side', side];
      const printed = execFileSync(process.execPath, [fileURLToPath(import.meta.url), ...flags], { encoding: 'utf8' });
      all[side].push(JSON.parse(printed.trim().split('\n').at(-1)));
    }
  }
  const names = Object.keys(all.ours[0]);
  const middle = (numbers) => {
    numbers.sort((a, b) => a - b);
    return (numbers[(numbers.length - 1) >> 1] + numbers[numbers.length >> 1]) / 2;
  };
  const median = (side) => Object.fromEntries(names.map((name) => [name, middle(all[side].map((run) => run[name]))]));
  const [mine, other] = [median('ours'), median('theirs')];
  const record = {
    date: new Date().toISOString().slice(0, 10),
    command: `node bench/peers/node-llama-cpp/compare.mjs ${process.argv.slice(2).join(' ')}`,
    machine: `${cpus()[0].model}, ${cpus().length} cores, Node ${process.version}, node-llama-cpp 3.22.1`,
    load,
    ...{ documentTokens, turnTokens, threads, sequences, ours: mine, theirs: other },
    oursOverTheirs: Object.fromEntries(names.map((name) => [name, mine[name] / other[name]])),
    runs: all,
  };
  const text = JSON.stringify(record, undefined, 1);
  if (values.out) writeFileSync(values.out, `${text}\n`);
  console.log(text);
}
