// On a GPU machine: tests under compute-sanitizer, and one line for each tool and file.
//   node test/gpu/sanitize.js [--tool memcheck,racecheck] [--seconds 600] [--at-once CORES] [--tests PATTERN] [FILE...]
// Without files, every file of test/ops and test/cuda. A core that is free takes part in the file that has run longest for
// its processes, if that is long, else it begins another file: so what is left at the end is short. Then come, alone, the
// file that takes all memory and files of which a test found none (memory.js). What has not ended after --seconds is
// killed. --tests is jest's filter of test names. "clean" means that all tests ended well and the tool found nothing. Logs
// are in build/gpu.
// racecheck can lose its place where some warps of a block meet at a barrier of their own, write, and all meet before
// others read (seen with 2025.3.1: a report, and none where all meet at first). Where it was reported, all warps of a
// kernel meet, or those that fetch count at a barrier in shared memory. There it takes an arrival for what the arriving
// thread wrote, and not for what others of its warp did before a __syncwarp (2025.3.1, 2026.4.0): so all of them arrive.
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
    tool: { type: 'string', default: 'memcheck,racecheck' },
    seconds: { type: 'string', default: '600' },
    'at-once': { type: 'string', default: String(Math.max(1, os.availableParallelism() - 2)) },
    tests: { type: 'string' },
  },
});
for (const name of ['seconds', 'at-once']) {
  if (!(Number(values[name]) >= 1))
    throw new TypeError(`--${name} must be a number of at least 1, got ${values[name]}`);
}
const root = path.join(__dirname, '..', '..');
const logs = path.join(root, 'build', 'gpu');
const jest = [path.join(root, 'node_modules', 'jest', 'bin', 'jest.js'), '--config', 'jest.cuda.config.js'];
const sanitizer = ['/usr/local/cuda/bin/compute-sanitizer'].find(fs.existsSync) ?? 'compute-sanitizer';
/** Milliseconds that a file has run for each of its processes before another takes part: where files wait, and at the end. */
const patience = { waiting: 25_000, end: 5000 };

/** A file under a tool. */
class Checked {
  running = 0;
  processes = [];
  /** No second process is to take part: one came to its end, so that no test is left to take. */
  taken = false;

  constructor(tool, file, alone = takesAllMemory(file)) {
    Object.assign(this, { tool, file, alone });
    this.name = `${path.basename(path.dirname(file))}/${path.basename(file, '.test.ts')}`;
    this.folder = path.join(logs, `${tool}-${this.name.replaceAll('/', '-')}`);
    this.results = path.join(this.folder, 'results.jsonl');
    fs.rmSync(this.folder, { recursive: true, force: true });
    fs.mkdirSync(path.join(this.folder, 'taken'), { recursive: true });
    fs.writeFileSync(this.results, '');
    // A model may take a quarter of the GPU's memory: three at once of the one file that loads some.
    this.loads = /\bload\(/.test(fs.readFileSync(file, 'utf8'));
    this.most = alone ? 1 : !this.loads ? Number.POSITIVE_INFINITY : tool === 'racecheck' ? 2 : 1;
  }

  /** Whether another process may take part. */
  get isOpen() {
    return this.running > 0 && !this.taken && this.processes.length < this.most;
  }

  /** Milliseconds, for each of its processes. */
  get ran() {
    return (Date.now() - this.start) / this.processes.length;
  }

  spawn() {
    this.start ??= Date.now();
    const log = path.join(this.folder, `${this.processes.length}.log`);
    const output = fs.openSync(log, 'w');
    const args = ['--tool', this.tool, '--kernel-name', 'kns=linattn'];
    // What a call of the runtime refuses, the tests are there to see.
    if (this.tool === 'memcheck') args.push('--report-api-errors', 'no');
    args.push('--print-limit', '20', process.execPath, ...jest, '--runInBand', '--testTimeout', '600000');
    args.push('--testEnvironment', path.join(__dirname, 'shared-file-environment.js'));
    args.push('--reporters', 'default', '--reporters', path.join(__dirname, 'results-reporter.js'));
    if (values.tests !== undefined) args.push('--testNamePattern', values.tests);
    // Without the products of cuBLASLt: racecheck breaks some of its kernels, and they are not ours.
    const env = { LINATTN_CUBLASLT: 'none', ...process.env, REQUIRE_CUDA: '1', LINATTN_RESULTS: this.results };
    env.LINATTN_TAKEN = path.join(this.folder, 'taken');
    const child = spawnGroup(sanitizer, [...args, '--runTestsByPath', this.file], {
      cwd: root,
      env,
      stdio: ['ignore', output, output],
    });
    fs.closeSync(output);
    this.processes.push(log);
    this.running++;
    return child;
  }

  /** The lines of results-reporter.js. */
  lines() {
    return fs.readFileSync(this.results, 'utf8').split('\n').filter(Boolean).map(JSON.parse);
  }

  /** Its line, and whether it is clean. */
  verdict() {
    const lines = this.lines();
    const tests = lines.filter(({ test }) => test !== undefined);
    const ends = lines.filter(({ seconds }) => seconds !== undefined); // a process's of the file
    const failed = tests.filter(({ status }) => status === 'failed');
    for (const { error } of ends) if (error !== undefined) failed.push({ test: `the file: ${error.trim()}` });
    const ended = new Set(tests.map(({ test }) => test));
    const taken = fs.readdirSync(path.join(this.folder, 'taken'));
    const of = (file) => fs.readFileSync(path.join(this.folder, 'taken', file), 'utf8');
    const total = taken.includes('total') ? Number(of('total')) : 0;
    const cut = taken.filter((file) => file !== 'total' && !ended.has(of(file))).map(of);
    const found = this.processes.reduce((sum, log) => sum + reports(log), 0);
    let verdict = 'clean';
    if (tests.length < total || ends.length < this.processes.length) verdict = 'clean so far, not ended';
    if (total === 0) verdict = taken.includes('total') ? 'NO TEST OF THAT NAME' : 'NO TEST BEGAN';
    if (failed.length > 0) verdict = `${failed.length} FAILED`;
    if (found > 0) verdict = `NOT CLEAN: ${found} reports`;
    const names = [...failed.map(({ test }) => `failed: ${test}`), ...cut.map((test) => `not ended: ${test}`)];
    const line = `${this.tool.padEnd(9)} ${this.name.padEnd(32)} ${verdict}; ${tests.length} of ${total} tests`;
    return { line: [line, ...names].join('\n    '), verdict, found, failed: failed.length, ended: tests.length, total };
  }
}

/** What the tool found: its own sum, or its reports so far where it was cut off. */
function reports(log) {
  const text = fs.readFileSync(log, 'utf8');
  const summary = /^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+)/m.exec(text);
  if (summary) return Number(summary[1]);
  const found = text.match(/^=+ (Invalid|Error|Warning|Uninitialized|Barrier).*/gm) ?? [];
  return found.filter((line) => !line.includes('before first instr')).length; // a test without kernels
}

function main() {
  const listed = positionals.length > 0 ? positionals : ['test/ops/', 'test/cuda/'];
  const args = [...jest, '--listTests', ...listed];
  const files = filesOf(execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8' }), listed);
  files.sort((a, b) => fs.statSync(b).size - fs.statSync(a).size); // long ones take longest, mostly
  const all = files.flatMap((file) => values.tool.split(',').map((tool) => new Checked(tool, file)));
  // First what few processes have to do alone, then what racecheck does, which takes longer.
  const rank = ({ alone, loads, tool }) => (alone ? 3 : loads ? 0 : tool === 'racecheck' ? 1 : 2);
  const waiting = [...all].sort((a, b) => rank(a) - rank(b));
  const children = new Map();
  const begin = Date.now();
  let isOver = false;

  const next = () => {
    const others = waiting.length > 0 && !waiting[0].alone;
    const least = others ? patience.waiting : patience.end;
    const open = all.filter((one) => one.isOpen && one.ran >= least);
    return open.sort((a, b) => b.ran - a.ran)[0] ?? (others || children.size === 0 ? waiting.shift() : undefined);
  };
  const runAgainAlone = (checked) => {
    console.log(`found no memory beside others, so again alone: ${checked.tool} ${checked.name}`);
    const again = new Checked(checked.tool, checked.file, true);
    all[all.indexOf(checked)] = again;
    waiting.push(again);
  };
  const fill = () => {
    while (!isOver && children.size < Number(values['at-once'])) {
      const checked = next();
      if (!checked) break;
      const child = checked.spawn();
      children.set(child, checked);
      child.on('error', (error) => console.log(`${sanitizer}: ${error.message}`));
      child.on('close', () => {
        children.delete(child);
        checked.running--;
        checked.taken = true;
        const ended = !isOver && checked.running === 0;
        if (ended && !checked.alone && checked.lines().some(foundNoMemory)) runAgainAlone(checked);
        fill();
        if (children.size === 0) report();
      });
    }
  };
  const timer = setInterval(fill, 1000);
  const limit = setTimeout(() => {
    isOver = true;
    for (const child of children.keys()) killGroup(child);
    if (children.size === 0) report();
  }, Number(values.seconds) * 1000);

  const report = () => {
    if (!isOver && waiting.length > 0) return;
    clearInterval(timer);
    clearTimeout(limit);
    const verdicts = all.map((one) => one.verdict());
    for (const { line } of verdicts) console.log(line);
    const sum = (key) => verdicts.reduce((total, one) => total + one[key], 0);
    const clean = verdicts.filter(({ verdict }) => verdict === 'clean').length;
    const seconds = ((Date.now() - begin) / 1000).toFixed(0);
    console.log(
      `total: ${clean} of ${all.length} clean; ${sum('ended')} of ${sum('total')} tests ended, ${sum('failed')} failed, ` +
        `${sum('found')} reports; ${seconds} s`,
    );
    process.exitCode = clean === all.length ? 0 : 1;
  };
  fill();
}

main();
