// What holds for a whole process: the event loop stays free, a known text costs milliseconds, a script ends by itself.
// Runs the built package (npm run build:ts) in child processes, away from jest's own load.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { goldenFolder } from '../support/tiny-tokenizers';

const module_ = join(__dirname, '..', '..', 'dist', 'tokenizer', 'tokenizer.js');
const script = (body: string) => `
  const { monitorEventLoopDelay } = require('node:perf_hooks');
  const { loadTokenizer } = require(${JSON.stringify(module_)});
  const prose = require('node:fs').readFileSync(${JSON.stringify(join(__dirname, '..', '..', 'LICENSE'))}, 'utf8');
  const text = prose.repeat(Math.ceil(2e6 / prose.length));
  (async () => {
    const tokenizer = await loadTokenizer(${JSON.stringify(goldenFolder)});
    ${body}
  })();`;
const run = (body: string) => {
  const started = performance.now();
  const output = JSON.parse(execFileSync(process.execPath, ['-e', script(body)], { encoding: 'utf8' }));
  return { output, ms: performance.now() - started };
};
const withDelay = (work: string) => `
    const delay = monitorEventLoopDelay({ resolution: 10 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    delay.enable();
    ${work}
    await new Promise((resolve) => setTimeout(resolve, 50));
    delay.disable();
    console.log(JSON.stringify({ max: delay.max / 1e6, tokens: ids.length }));
    tokenizer.dispose();`;

test.each([
  ['2 MB of prose', 'const ids = await tokenizer.encode(text);'],
  ['one word of 300,000 letters', "const ids = await tokenizer.encode('x'.repeat(300_000));"],
])('the event loop waits less than 50 ms while %s is encoded, in one of three runs', (_, work) => {
  const runs = [1, 2, 3].map(() => run(withDelay(work)).output as { max: number; tokens: number });
  expect(Math.min(...runs.map(({ tokens }) => tokens))).toBeGreaterThan(30_000);
  expect(Math.min(...runs.map(({ max }) => max))).toBeLessThan(50);
});

test('2 MB with a question behind it take less than a twentieth of the first time, in one of three runs', () => {
  const body = `
    let start = performance.now();
    await tokenizer.encode(text);
    const first = performance.now() - start;
    start = performance.now();
    await tokenizer.encode(text + 'What may I do with it?');
    console.log(JSON.stringify({ first, extended: performance.now() - start }));`;
  const ratios = [1, 2, 3].map(() => run(body).output).map(({ first, extended }) => extended / first);
  expect(Math.min(...ratios)).toBeLessThan(1 / 20);
});

test('a script that disposes nothing ends by itself, before the idle worker would, in one of three runs', () => {
  const times: number[] = [];
  while (times.length < 3 && !times.some((ms) => ms < 4500)) {
    const { output, ms } = run('console.log(JSON.stringify((await tokenizer.encode(text.slice(0, 50_000))).length));');
    expect(output).toBeGreaterThan(1000);
    times.push(ms);
  }
  expect(Math.min(...times)).toBeLessThan(4500);
});

test('the worker ends when it was idle', () => {
  const body = `
    const threads = require('node:worker_threads');
    const seen = [];
    threads.Worker = class extends threads.Worker {
      constructor(...options) {
        super(...options);
        this.on('online', () => seen.push('started')).on('exit', () => {
          seen.push('ended');
          clearTimeout(alive);
        });
      }
    };
    const alive = setTimeout(() => {}, 60_000);
    await tokenizer.encode(text.slice(0, 50_000));
    const after = [...seen];
    process.on('exit', () => console.log(JSON.stringify({ after, later: seen })));`;
  expect(run(body).output).toEqual({ after: ['started'], later: ['started', 'ended'] });
});
