// Runs the recall trials of models/default/eval/trials.json with linattn itself (build first: npm run build):
//   node models/train/recall.mjs [--device cuda] [--tasks single,distractors] [--lengths 1024,4096] [--trials 100]
//     [--parallel 8] [--json models/default/eval/recall.json]
// Prints right answers by task and length; --json adds them to what the file holds, where card.py reads them. The
// protocol is in README.md beside this file.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { devices, load } from '../../dist/index.mjs';

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), '..', '..');
const { values } = parseArgs({
  options: {
    device: { type: 'string', default: 'auto' },
    tasks: { type: 'string', default: 'single,distractors' },
    lengths: { type: 'string', default: '1024,4096,16384,65536' },
    trials: { type: 'string', default: '100' },
    parallel: { type: 'string', default: '8' },
    json: { type: 'string' },
  },
});
const { version } = createRequire(import.meta.url)('../../package.json');
const { filler: fillerFile, task: tasks } = JSON.parse(
  readFileSync(path.join(root, 'models/default/eval/trials.json'), 'utf8'),
);
const filler = readFileSync(path.join(root, fillerFile), 'latin1'); // ASCII, so offsets are characters

function promptOf({ start, end, facts, question }) {
  let prompt = '';
  let at = start;
  for (const [offset, text] of facts) {
    prompt += filler.slice(at, offset) + text;
    at = offset;
  }
  return prompt + filler.slice(at, end) + question;
}

/** Right answers among `trials`, `parallel` of them at a time, and the longest prompt in tokens. */
async function measure(trials) {
  const waiting = [...trials];
  let right = 0;
  let longest = 0;
  const work = async () => {
    for (let trial = waiting.shift(); trial !== undefined; trial = waiting.shift()) {
      const run = model.generate({ prompt: promptOf(trial), maxTokens: 8, temperature: 0 });
      const { text, usage } = await run.result;
      if (text.startsWith(trial.answer)) right++;
      longest = Math.max(longest, usage.promptTokens);
    }
  };
  await Promise.all(Array.from({ length: parallel }, work));
  return { right, longest };
}

/** Puts one figure into the file, so that a long run may be cut short or go on elsewhere. */
function keep(file, task, length, figure) {
  const rates = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).rates : {};
  rates[task] = { ...rates[task], [length]: figure };
  writeFileSync(file, `${JSON.stringify({ rates }, undefined, 1)}\n`);
}

const parallel = Number(values.parallel);
const model = await load({ device: values.device, maxSequences: parallel });
const { name, description } = devices().find((one) => one.name === model.info.device);
const measuredWith = `linattn ${version}, ${name === 'cpu' ? 'CPU' : description}`;
for (const task of values.tasks.split(',')) {
  for (const length of values.lengths.split(',')) {
    const trials = (tasks[task]?.[length] ?? []).slice(0, Number(values.trials));
    if (trials.length === 0) throw new Error(`trials.json has no ${task} trials of ${length} tokens`);
    const started = performance.now();
    const { right, longest } = await measure(trials);
    const seconds = ((performance.now() - started) / 1000).toFixed(0);
    process.stdout.write(
      `${task} ${length}: ${right} of ${trials.length} (longest prompt ${longest} tokens, ${seconds} s)\n`,
    );
    if (values.json) keep(values.json, task, length, { right, trials: trials.length, measured_with: measuredWith });
  }
}
await model.dispose();
