// All tests of jest.cuda.config.js in jest processes side by side, and one total.
//   node test/gpu/suite.js [--seconds 600] [--workers CORES] [--models 2] [PATTERN...]
// Models take a quarter of the GPU's memory each, as do those of child processes: --models tests of them at once at most.
// At the end, alone, come the test that takes all memory there is and files of which a test found none: that others held it
// is nothing against them. What has not ended after --seconds is killed and counts as failed. Logs are in build/gpu.
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { foundNoMemory, takesAllMemory } = require('./memory');
const { filesOf, killGroup, spawnGroup } = require('./process-group');

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: 'string', default: '600' },
    workers: { type: 'string', default: String(Math.max(1, os.availableParallelism() - 3)) },
    models: { type: 'string', default: '2' },
  },
});
const root = path.join(__dirname, '..', '..');
const folder = path.join(root, 'build', 'gpu');
const config = path.join(__dirname, 'suite.config.js');
const jest = [path.join(root, 'node_modules', 'jest', 'bin', 'jest.js'), '--config', config];

const listed = execFileSync(process.execPath, [...jest, '--listTests', ...positionals], {
  cwd: root,
  encoding: 'utf8',
});
const files = filesOf(listed, positionals);
const holdsModels = (file) => /\/test\/(model|generation|state|cuda\/repeat)\b/.test(file);
const start = Date.now();

/** Runs files in a jest process of `workers` workers; resolves with the lines of results-reporter.js. */
function run(name, chosen, workers) {
  const results = path.join(folder, `${name}.jsonl`);
  fs.writeFileSync(results, '');
  const log = fs.openSync(path.join(folder, `${name}.log`), 'w');
  const args = [...jest, '--runTestsByPath', ...chosen, '--maxWorkers', workers, '--reporters', 'default'];
  args.push('--reporters', path.join(__dirname, 'results-reporter.js'));
  const child = spawnGroup(process.execPath, args, {
    cwd: root,
    env: { ...process.env, REQUIRE_CUDA: '1', LINATTN_RESULTS: results },
    stdio: ['ignore', log, log],
  });
  const left = start + Number(values.seconds) * 1000 - Date.now();
  const timer = setTimeout(() => killGroup(child), Math.max(left, 0));
  return new Promise((resolve) => {
    child.on('close', () => {
      clearTimeout(timer);
      const lines = fs.readFileSync(results, 'utf8').split('\n').filter(Boolean);
      resolve(lines.map((line) => JSON.parse(line)));
    });
  });
}

async function main() {
  fs.mkdirSync(folder, { recursive: true });
  const models = files.filter(holdsModels);
  const others = files.filter((file) => !holdsModels(file) && !takesAllMemory(file));
  const runs = [];
  if (others.length > 0) runs.push(run('suite-ops', others, values.workers));
  if (models.length > 0) runs.push(run('suite-models', models, values.models));
  const together = (await Promise.all(runs)).flat();
  const again = new Set(together.filter(foundNoMemory).map(({ file }) => file));
  const alone = [...files.filter(takesAllMemory), ...[...again].map((file) => path.join(root, file))];
  const lines = together.filter(({ file }) => !again.has(file));
  if (alone.length > 0) lines.push(...(await run('suite-alone', alone, '1')));
  for (const file of again) console.log(`found no memory beside others, so again alone: ${file}`);
  const tests = lines.filter(({ test }) => test !== undefined);
  const ends = new Map(lines.filter(({ seconds }) => seconds !== undefined).map((end) => [end.file, end]));
  const count = (file, status) =>
    tests.filter((one) => one.status === status && (file ?? one.file) === one.file).length;
  const report = files.map((absolute) => {
    const file = path.relative(root, absolute);
    const { seconds = Number.POSITIVE_INFINITY, error } = ends.get(file) ?? {};
    const failed = count(file, 'failed');
    const verdict = seconds === Number.POSITIVE_INFINITY ? 'CUT ' : failed > 0 || error !== undefined ? 'FAIL' : 'ok  ';
    return { file, seconds, error, failed, passed: count(file, 'passed'), verdict };
  });
  for (const { file, seconds, error, failed, passed, verdict } of report.sort((a, b) => b.seconds - a.seconds)) {
    console.log(`${verdict} ${seconds.toFixed(1).padStart(8)} s  ${passed} passed, ${failed} failed  ${file}`);
    if (error !== undefined) console.log(error);
  }
  for (const { file, test, message } of tests.filter(({ status }) => status === 'failed'))
    console.log(`\n${file}: ${test}\n${message.slice(0, 2000)}`);
  const bad = report.filter(({ verdict }) => verdict !== 'ok  ').length;
  const took = ((Date.now() - start) / 1000).toFixed(0);
  console.log(
    `total: ${count(undefined, 'passed')} tests passed, ${count(undefined, 'failed')} failed; of ${files.length} files ` +
      `${bad} failed or were cut off; ${took} s`,
  );
  process.exitCode = bad > 0 ? 1 : 0;
}

main();
