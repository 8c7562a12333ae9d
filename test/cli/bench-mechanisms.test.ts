// linattn bench --mechanisms: the numbers of its report, and the page that is made of its records.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  checkLengths,
  crossover,
  crossoverText,
  evenly,
  lengthText,
  type MechanismReport,
  mechanismTables,
} from '../../lib/cli/bench-mechanisms';
import { mechanismPlot } from '../../lib/cli/bench-mechanisms-plot';

const root = path.join(__dirname, '../..');
const main = path.join(root, 'dist/cli/main.js');

test('the lines of two costs cross where their logarithms do', () => {
  const lengths = [1024, 4096, 16384];
  expect(crossover(lengths, [4, 4, 4], [1, 4, 16])).toBe(4096);
  expect(crossover(lengths, [2, 2, 2], [1, 4, 16])).toBe(2048);
  expect(crossover(lengths, [8, 8, 8], [1, 4, 16])).toBe(8192);
  expect(crossover(lengths, [0.5, 0.5, 0.5], [1, 4, 16])).toBe(1024);
  expect(crossover(lengths, [20, 20, 20], [1, 4, 16])).toBeNull();
  // Below it for a while is not below it.
  expect(crossover(lengths, [0.5, 8, 8], [1, 4, 16])).toBe(8192);
});

test('slices stand where a linear cost has its mean', () => {
  expect(evenly(1024, 512)).toEqual([0, 512]);
  expect(evenly(512, 512)).toEqual([0]);
  const starts = evenly(2 ** 20, 4096);
  expect(starts).toHaveLength(4);
  const mean = starts.reduce((sum, start) => sum + start, 0) / 4;
  expect(mean + 2048).toBe(2 ** 19);
  expect(starts.every((start) => start % 256 === 0)).toBe(true);
});

test('lengths are ascending multiples of 1024', () => {
  expect(checkLengths([1024, 4096])).toEqual([1024, 4096]);
  for (const lengths of [[], [1000], [4096, 1024], [1024, 1024]]) {
    expect(() => checkLengths(lengths)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  }
  expect([1024, 2 ** 20, 2205, 700].map(lengthText)).toEqual(['1k', '1M', '2.2k', '700']);
  expect([null, 1024, 4096].map((from) => crossoverText(from, [1024, 4096]))).toEqual(['never here', 'up to 1k', '4k']);
});

test('a run: errors that mean something, a plot, one JSON object', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'linattn-'));
  const svg = path.join(folder, 'plot.svg');
  const flags = ['--mechanisms', '--quick', '--lengths', '1024,2048', '--device', 'cpu', '--json', '--svg', svg];
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'bench', ...flags], { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { mechanisms } = JSON.parse(stdout) as { mechanisms: MechanismReport };
  const errors = Object.fromEntries(mechanisms.rows.map(({ name, error }) => [name, error]));
  expect(errors.softmax).toEqual([0, 0]);
  expect(errors.GLA).toEqual([null, null]);
  // A window of 1,024 sees all of the first 1,024 tokens, and not of the next.
  expect(errors.window![0]).toBe(0);
  expect(errors.window![1]).toBeGreaterThan(0.1);
  // More directions, less error; second order, less than elu + 1, on scores as small as these.
  expect(errors['FAVOR+ 256']![1]).toBeLessThan(errors['FAVOR+ 64']![1]!);
  expect(errors.Taylor![1]).toBeLessThan(0.5);
  for (const { prefill, decode } of mechanisms.rows) {
    for (const time of [...prefill, ...decode]) expect(time).toBeGreaterThan(0);
  }
  const plot = fs.readFileSync(svg, 'utf8');
  expect(plot.match(/<polyline/g)!.length).toBe(9 + 9 + 6);
  fs.rmSync(folder, { recursive: true });
}, 120_000);

test('a plot that cannot be written is told before anything is measured', () => {
  const flags = [
    '--mechanisms',
    '--device',
    'cpu',
    '--json',
    '--svg',
    path.join(os.tmpdir(), 'no', 'such', 'folder.svg'),
  ];
  const { status, stdout } = spawnSync(process.execPath, [main, 'bench', ...flags], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  expect(status).toBe(1);
  expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'ERR_FILE', message: expect.stringContaining('--svg') } });
});

test('docs/mechanisms.md shows the records that lie in bench/results', () => {
  const page = fs.readFileSync(path.join(root, 'docs/mechanisms.md'), 'utf8');
  const folder = path.join(root, 'bench/results');
  const names = fs.readdirSync(folder).filter((file) => file.startsWith('mechanisms-'));
  expect(names.length).toBeGreaterThan(0);
  for (const file of names) {
    const { machine, mechanisms } = JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8'));
    expect(page).toContain(`### ${machine}`);
    for (const { rows } of mechanismTables(mechanisms)) {
      for (const cells of rows) expect(page).toContain(`| ${cells.join(' | ')} |`);
    }
    const plot = fs.readFileSync(path.join(root, 'docs', file.replace('.json', '.svg')), 'utf8');
    expect(plot).toBe(mechanismPlot(mechanisms, machine));
  }
});
