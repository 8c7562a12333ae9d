// Runs the recall trials of models/default/eval/trials.json with linattn itself (build first: npm run build):
//   node models/train/recall.mjs [--task single] [--lengths 1024,4096] [--count 100] [--json file]
// Prints right answers by task and length. The protocol is in README.md beside this file.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { load } from '../../dist/index.mjs';

const root = path.join(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..', '..');
const { values } = parseArgs({
  options: {
    task: { type: 'string' },
    lengths: { type: 'string', default: '1024,4096,16384,65536' },
    count: { type: 'string', default: '100' },
    json: { type: 'string' },
  },
});
const trials = JSON.parse(readFileSync(path.join(root, 'models/default/eval/trials.json'), 'utf8'));
const filler = readFileSync(path.join(root, trials.filler), 'latin1'); // ASCII, so offsets are characters

function promptOf({ start, end, facts, question }) {
  let prompt = '';
  let at = start;
  for (const [offset, text] of facts) {
    prompt += filler.slice(at, offset) + text;
    at = offset;
  }
  return prompt + filler.slice(at, end) + question;
}

const model = await load();
const results = {};
for (const [task, byLength] of Object.entries(trials.task)) {
  if (values.task !== undefined && values.task !== task) continue;
  for (const length of values.lengths.split(',')) {
    const chosen = (byLength[length] ?? []).slice(0, Number(values.count));
    if (chosen.length === 0) continue;
    const started = performance.now();
    let right = 0;
    let most = 0;
    for (const trial of chosen) {
      const run = model.generate({ prompt: promptOf(trial), maxTokens: 8, temperature: 0 });
      const { text, usage } = await run.result;
      if (text.startsWith(trial.answer)) right++;
      most = Math.max(most, usage.promptTokens);
    }
    const seconds = (performance.now() - started) / 1000;
    results[task] = { ...results[task], [length]: { right, trials: chosen.length, longestPrompt: most } };
    process.stdout.write(
      `${task} ${length}: ${right} of ${chosen.length} (longest prompt ${most} tokens, ${seconds.toFixed(0)} s)\n`,
    );
  }
}
await model.dispose();
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, undefined, 1)}\n`);
