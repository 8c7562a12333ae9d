// argv[2] clients, each with one request after the other on the default model (cpu), for argv[3] seconds: half of them to warm
// up. Some requests are aborted, some are left in the middle; each token is held against that of a run alone, and so is every
// result that is not cancelled: a run may have ended before it is noticed that its caller left.
// Prints what happened as JSON.
const { readFileSync } = require('node:fs');
const path = require('node:path');
const { setTimeout: longEnough } = require('node:timers/promises');
const root = path.join(__dirname, '..', '..', '..');
const { load, devices } = require(root);
const { fence } = require(path.join(root, 'dist', 'tensor', 'device.js'));

const sequences = 48;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A generator with a seed (mulberry32): below(n) is a whole number from 0. */
function randomOf(seed) {
  let state = seed;
  const below = (n) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
  return { below };
}

function tasksOf(tokens, count) {
  const { below } = randomOf(1);
  return Array.from({ length: count }, () => {
    const length = 1 + below(below(8) === 0 ? 600 : 60);
    const from = below(tokens.length - length);
    return {
      tokens: tokens.subarray(from, from + length),
      maxTokens: 1 + below(24),
      seed: below(1000),
      temperature: 0.8,
    };
  });
}

const percentiles = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return [0.5, 0.9, 0.99, 1].map((share) => Math.round(sorted[Math.ceil(share * sorted.length) - 1]));
};

async function memory() {
  for (let i = 0; i < 4; i++) {
    global.gc();
    await pause(100);
    await fence('cpu');
  }
  return { used: devices()[0].memory().used, resident: process.memoryUsage().rss };
}

async function main() {
  const [clients, seconds] = process.argv.slice(2).map(Number);
  const model = await load({ device: 'cpu', maxSequences: sequences });
  const novel = readFileSync(path.join(root, 'examples', 'persuasion.txt'), 'utf8');
  const tasks = tasksOf(await model.tokenizer.encode(novel.slice(0, 40_000)), 40);
  const alone = [];
  for (const task of tasks) alone.push(await model.generate(task).result);

  const counts = { generations: 0, aborted: 0, left: 0, wrong: 0 };
  const [firstToken, betweenTokens] = [[], []];
  let tokens = 0;
  const one = async (random) => {
    const i = random.below(tasks.length);
    const fate = random.below(10);
    const most = fate === 0 ? 1 + random.below(5) : Number.POSITIVE_INFINITY;
    const control = new AbortController();
    const timer = fate === 1 ? setTimeout(() => control.abort('enough'), random.below(3000)) : undefined;
    let last = performance.now();
    let seen = 0;
    try {
      const run = model.generate({ ...tasks[i], priority: random.below(3) - 1, signal: control.signal });
      for await (const { token } of run) {
        const now = performance.now();
        (seen === 0 ? firstToken : betweenTokens).push(now - last);
        last = now;
        if (token !== alone[i].tokens[seen++]) counts.wrong++;
        if (seen >= most) break;
      }
      const result = await run.result;
      if (!result.tokens.every((token, at) => token === alone[i].tokens[at])) counts.wrong++;
      if (result.finishReason === 'cancelled') counts.left++;
      else if (result.text !== alone[i].text || result.tokens.length !== alone[i].tokens.length) counts.wrong++;
      else if (seen !== result.tokens.length && seen < most) counts.wrong++;
    } catch (error) {
      if (error !== 'enough') throw error;
      counts.aborted++;
    } finally {
      clearTimeout(timer);
      counts.generations++;
      tokens += seen;
    }
  };
  const round = async (ms, seed) => {
    const end = performance.now() + ms;
    let running = clients;
    const client = async (number) => {
      const random = randomOf(seed + number);
      while (performance.now() < end) await one(random);
      running--;
    };
    const all = Promise.all(Array.from({ length: clients }, (_, number) => client(number)));
    await Promise.race([all, longEnough(ms + 120_000, undefined, { ref: false })]);
    return running;
  };

  // A step of every size that is recorded once is recorded before memory is measured.
  for (const together of [1, 2, 4, 8, 16, 24, 32, sequences]) {
    const short = { tokens: tasks[0].tokens.subarray(0, 1), maxTokens: 8, ignoreEos: true };
    await Promise.all(Array.from({ length: together }, () => model.generate(short).result));
  }
  let stuck = await round(seconds * 500, 1000);
  const before = await memory();
  for (const times of [firstToken, betweenTokens]) times.length = 0;
  tokens = 0;
  const started = performance.now();
  stuck += await round(seconds * 500, 5000);
  const tokensPerSecond = Math.round((tokens * 1000) / (performance.now() - started));
  const times = { firstToken: percentiles(firstToken), betweenTokens: percentiles(betweenTokens), tokensPerSecond };
  const after = await memory();
  const used = [before.used, after.used];
  const resident = [before.resident, after.resident];
  console.log(JSON.stringify({ ...counts, stuck, ...times, used, resident }));
  await model.dispose();
}

main();
