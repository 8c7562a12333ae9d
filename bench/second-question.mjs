// What a second question on a long document costs (npm run build first):
//
//   node bench/second-question.mjs [--model folder] [--device cpu] [--tokens 100000] [--store folder] [--json]
//
// Times to the first token, each prompt being the document and a question of 64 tokens: of the first question; of a second
// one, whose document lies in the device's cache; and of a third one in a new process, which finds it in a DirectoryStore
// (in a new folder under --store, default the system's folder for temporary files). Beside the last: what the store alone
// takes for the values that this question read, read again in the same process, one after the other and as many at a time
// as the question read; the faster of the two is the store's own bandwidth.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { DirectoryStore, devices, load } from 'linattn';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    tokens: { type: 'string', default: '100000' },
    store: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
    restarted: { type: 'string' }, // the folder of the store: this is the new process
  },
});
const documentTokens = Number(values.tokens);
const questionTokens = 64;

/** A DirectoryStore that tells what went through it. */
class WatchedStore extends DirectoryStore {
  read = [];
  reading = 0;
  mostReading = 0;
  writing = 0;
  wroteAt = 0;

  async get(key, memory) {
    this.mostReading = Math.max(this.mostReading, ++this.reading);
    const value = await super.get(key, memory);
    this.reading--;
    if (value !== undefined) this.read.push({ key, bytes: value.byteLength });
    return value;
  }

  async set(key, value) {
    this.writing++;
    await super.set(key, value);
    this.writing--;
    this.wroteAt = performance.now();
  }

  /** Resolves when nothing was written for half a second. */
  async written() {
    while (this.writing > 0 || performance.now() - this.wroteAt < 500) await setTimeout(50);
  }
}

function someTokens(count, seed, below) {
  let x = (seed + 1) * 2_654_435_761;
  return Int32Array.from({ length: count }, () => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    return x % below;
  });
}

async function open(folder) {
  const store = new WatchedStore(folder);
  const failures = [];
  const model = await load({
    ...(values.model && { model: values.model }),
    device: values.device,
    maxSequences: 2,
    prefixCache: { store, onStoreError: (error) => failures.push(error) },
  });
  const below = Math.min(model.info.vocabularySize, 240_000);
  const document = someTokens(documentTokens, 0, below);
  const ask = async (question) => {
    const tokens = new Int32Array(documentTokens + questionTokens);
    tokens.set(document);
    tokens.set(someTokens(questionTokens, question, below), documentTokens);
    const from = performance.now();
    const { usage } = await model.generate({ tokens, maxTokens: 1, temperature: 0, ignoreEos: true }).result;
    return { ms: performance.now() - from, cachedTokens: usage.cachedTokens };
  };
  // What a process does once: memory, kernels, recorded steps.
  for (const count of [600, 192, 64]) {
    const tokens = someTokens(count, 99 + count, below);
    await model.generate({ tokens, maxTokens: 2, temperature: 0, ignoreEos: true }).result;
  }
  return { model, store, ask, failures };
}

async function ends({ model, store, failures }) {
  await store.written();
  await model.dispose();
  if (failures.length > 0) throw failures[0];
}

/** The median of 5 reads of all that a question read, so many values at a time. */
async function storeMs(store, keys, atOnce) {
  const times = [];
  for (let run = 0; run < 5; run++) {
    const from = performance.now();
    let next = 0;
    const lane = async () => {
      const memory = new Uint8Array(2 ** 25);
      while (next < keys.length) await store.get(keys[next++], memory);
    };
    await Promise.all(Array.from({ length: atOnce }, lane));
    times.push(performance.now() - from);
  }
  return times.sort((a, b) => a - b)[2];
}

if (values.restarted !== undefined) {
  const opened = await open(values.restarted);
  opened.store.read.length = 0;
  const answer = await opened.ask(3);
  const read = opened.store.read.slice();
  const keys = read.map(({ key }) => key);
  const bytes = read.reduce((sum, one) => sum + one.bytes, 0);
  const atOnce = opened.store.mostReading;
  await ends(opened);
  const store = new DirectoryStore(values.restarted);
  const [one, several] = [await storeMs(store, keys, 1), await storeMs(store, keys, atOnce)];
  const times = { storeOneByOneMs: one, storeAtOnceMs: several, storeMs: Math.min(one, several) };
  console.log(JSON.stringify({ ...answer, bytes, values: keys.length, atOnce, ...times }));
} else {
  const folder = mkdtempSync(path.join(values.store, 'linattn-second-question-'));
  try {
    const opened = await open(folder);
    const first = await opened.ask(1);
    if (first.cachedTokens !== 0) throw new Error('the first question found its document in the cache');
    const second = await opened.ask(2);
    const written = performance.now();
    const { info } = opened.model;
    await ends(opened);
    const writeMs = performance.now() - written;
    const again = process.argv.slice(2).filter((flag) => flag !== '--json');
    const child = [fileURLToPath(import.meta.url), ...again, '--restarted', folder];
    const restarted = JSON.parse(execFileSync(process.execPath, child, { encoding: 'utf8' }));
    const report = {
      command: `node bench/second-question.mjs ${process.argv.slice(2).join(' ')}`,
      machine: `Node ${process.version}, ${devices().find(({ name }) => name === info.device).description}`,
      ...{ documentTokens, questionTokens, first, second, secondShare: second.ms / first.ms },
      ...{ writeMs, restarted, restartedShare: restarted.ms / first.ms },
      restartedOverStore: restarted.ms / restarted.storeMs,
    };
    if (values.json) {
      console.log(JSON.stringify(report, undefined, 1));
    } else {
      const percent = (share) => `${(100 * share).toFixed(2)} %`;
      console.log(`${report.machine}\ndocument of ${documentTokens} tokens: first question ${first.ms.toFixed(0)} ms`);
      console.log(`second ${second.ms.toFixed(1)} ms, ${percent(report.secondShare)}`);
      console.log(`after a restart ${restarted.ms.toFixed(1)} ms, ${percent(report.restartedShare)}`);
      console.log(
        `the store alone ${restarted.storeMs.toFixed(1)} ms for ${restarted.bytes} bytes in ${restarted.values} values (one by one ` +
          `${restarted.storeOneByOneMs.toFixed(1)} ms, ${restarted.atOnce} at a time ${restarted.storeAtOnceMs.toFixed(1)} ms): ` +
          `${report.restartedOverStore.toFixed(2)} times`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}
