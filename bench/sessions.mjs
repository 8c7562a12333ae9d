// Many sessions that decode together, as their `for await` consumers see them (npm run build first):
//
//   node bench/sessions.mjs [--model folder] [--device cuda] [--sessions 1000] [--context 256] [--tokens 192] [--forks]
//     [--json]
//
// Each session reads a context of its own; with --forks one session reads it and the others are its forks. Then all
// generate, sampled on the device. The rate is that of all consumers between the moment when the slowest has its
// 32nd token and the moment when the fastest has its last. Beside it: the floor, which is the bytes that a step must move
// (weights once, each state read and written, keys and values read) over the device's own rate of a copy; the share of the
// time in which the calling thread was busy; and the memory of the device that was in use in the end.

import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { devices, load } from 'linattn';
import { copyRate } from './copy-rate.mjs';

const { values } = parseArgs({
  options: {
    model: { type: 'string' },
    device: { type: 'string', default: 'cuda' },
    sessions: { type: 'string', default: '1000' },
    context: { type: 'string', default: '256' },
    tokens: { type: 'string', default: '192' },
    forks: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const { device } = values;
const [count, contextTokens, maxTokens] = [values.sessions, values.context, values.tokens].map(Number);
const warmTokens = 32;
const bytesOf = { float32: 4, bfloat16: 2, float16: 2 };
if (!(count >= 1 && contextTokens >= 1 && maxTokens > warmTokens)) {
  throw new Error(`sessions and context must be at least 1 and tokens above ${warmTokens}`);
}

const copyGbps = await copyRate(device);
const model = await load({
  ...(values.model && { model: values.model }),
  device,
  maxSequences: count,
  maxSnapshots: 0,
});
const { info } = model;
const { vocabularySize, stateBytes, kvBytesPerToken } = info;
const described = devices().find(({ name }) => name === info.device);
const used = () => described.memory().used;

/** Tokens of a context, other ones for each seed. */
function someTokens(seed) {
  let x = (seed + 1) * 2_654_435_761;
  return Int32Array.from({ length: contextTokens }, () => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    return x % Math.min(vocabularySize, 240_000);
  });
}

async function openAll() {
  if (!values.forks) {
    const opened = Array.from({ length: count }, () => model.createSession());
    await Promise.all(opened.map((session, i) => session.prefill({ tokens: someTokens(i) })));
    return opened;
  }
  const origin = model.createSession();
  await origin.prefill({ tokens: someTokens(0) });
  before = used();
  const opened = [origin];
  while (opened.length < count) opened.push(await origin.fork());
  return opened;
}

let before = used();
const readFrom = performance.now();
const sessions = await openAll();
const readMs = performance.now() - readFrom;

const seen = new Int32Array(count);
const stamps = [];
let [slow, total] = [count, 0];
let from;
let to;
async function consume(session, i) {
  const choice = { temperature: 0.7, topP: 0.9, seed: i, ignoreEos: true, maxTokens };
  const generation = session.generate(choice);
  for await (const { token } of generation) {
    if (!(token >= 0 && token < vocabularySize)) throw new Error(`session ${i} got the token ${token}`);
    total++;
    const at = ++seen[i];
    if (i === 0) stamps.push(performance.now());
    if (at === warmTokens && --slow === 0) {
      from = { ms: performance.now(), total, busy: performance.eventLoopUtilization() };
    }
    if (at === maxTokens && to === undefined) {
      to = { ms: performance.now(), total, busy: performance.eventLoopUtilization(from?.busy) };
    }
  }
  return generation.result;
}
const results = await Promise.all(sessions.map(consume));
const grownBytes = used() - before;
const { reserved: reservedBytes, total: totalBytes } = described.memory();
if (!results.every(({ tokens }) => tokens.length === maxTokens)) throw new Error('a session ended early');
if (from === undefined || to.ms <= from.ms) throw new Error('the sessions did not decode together: raise --tokens');

const pageTokens = 64;
const writtenPages = Math.ceil((contextTokens + maxTokens) / pageTokens) - Math.floor(contextTokens / pageTokens);
const seconds = (to.ms - from.ms) / 1000;
const tokensPerSecond = (to.total - from.total) / seconds;
const stepMs = (1000 * count) / tokensPerSecond;
const meanContext = contextTokens + (warmTokens + maxTokens) / 2;
const moved = {
  weights: info.parameters * bytesOf[info.dtype],
  states: 2 * stateBytes * count,
  keysAndValues: kvBytesPerToken * meanContext * count,
};
const floorMs = Object.values(moved).reduce((sum, bytes) => sum + bytes, 0) / (copyGbps * 1e6);
const steps = stamps
  .slice(warmTokens)
  .map((at, i) => at - stamps[warmTokens + i - 1])
  .sort((a, b) => a - b);
const stepAt = (share) => steps[Math.floor(share * (steps.length - 1))];
const report = {
  command: `node bench/sessions.mjs ${process.argv.slice(2).join(' ')}`,
  machine: `Node ${process.version}, ${described.description}`,
  ...{ sessions: count, contextTokens, maxTokens, forks: values.forks, readMs, tokensPerSecond, stepMs },
  stepMsOfOneConsumer: { p10: stepAt(0.1), p50: stepAt(0.5), p90: stepAt(0.9) },
  ...{ copyGbps, moved, floorMs, share: floorMs / stepMs },
  callingThreadMsPerStep: to.busy.utilization * stepMs,
  ...{ grownBytes, reservedBytes, totalBytes },
  ...(values.forks && {
    // Two states, and a page in each softmax layer for every 64 tokens that a fork writes and one that it shares in part.
    allowedBytes: count * (2 * stateBytes + pageTokens * kvBytesPerToken * writtenPages),
    tokensReadAgain: results.reduce((sum, { usage }) => sum + usage.promptTokens - usage.cachedTokens, 0),
  }),
};
await model.dispose();
if (values.json) {
  console.log(JSON.stringify(report, undefined, 1));
} else {
  console.log(`${report.machine}\n${count} sessions, each with a context of ${contextTokens} tokens`);
  console.log(`${tokensPerSecond.toFixed(0)} tokens/s in all, a step ${stepMs.toFixed(2)} ms`);
  console.log(
    `floor ${floorMs.toFixed(2)} ms (copy at ${copyGbps.toFixed(0)} GB/s), ${(100 * report.share).toFixed(0)} %`,
  );
  console.log(`calling thread busy ${report.callingThreadMsPerStep.toFixed(2)} ms a step`);
  const gib = (bytes) => (bytes / 2 ** 30).toFixed(1);
  console.log(`memory ${gib(reservedBytes)} of ${gib(totalBytes)} GiB, what steps need for a moment not counted`);
  if (values.forks) {
    console.log(`memory grew by ${grownBytes} bytes, allowed ${report.allowedBytes}`);
    console.log(`prompt tokens read again: ${report.tokensReadAgain}`);
  }
}
