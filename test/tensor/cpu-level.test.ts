// LINATTN_CPU forces a level of instructions: each in a process of its own, told apart by the bits that it computes.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { cpu } from '../../lib/tensor/device';

const program = path.join(__dirname, '..', 'support', 'programs', 'cpu-level.js');
const levels = ['baseline', 'avx2', 'avx512', 'avx512bf16'];
const run = (level: string) =>
  spawnSync(process.execPath, [program], {
    encoding: 'utf8',
    env: { ...process.env, LINATTN_DEVICE: 'cpu', LINATTN_CPU: level },
  });

interface Printed {
  level: string;
  description: string;
  bits: Record<'norm' | 'float32' | 'bfloat16', string>;
}

test('each level that this machine has runs when it is forced, and computes as only it does', () => {
  const best = (JSON.parse(run('').stdout) as Printed).level;
  const has = best === 'neon' ? ['baseline', 'neon'] : levels.slice(0, levels.indexOf(best) + 1);
  const printed = has.map((level) => JSON.parse(run(level).stdout) as Printed);
  expect(printed.map(({ level }) => level)).toEqual(has);
  for (const { level, description } of printed) expect(description).toContain(`, ${level}, `);
  // Baseline has no fused multiply-add, AVX-512 sums in 16 lanes, AVX-512 BF16 has its own product.
  const differs = { avx2: 'float32', avx512: 'norm', avx512bf16: 'bfloat16', neon: 'float32' } as const;
  for (let i = 1; i < has.length; i++) {
    const name = differs[has[i] as keyof typeof differs];
    expect(printed[i]!.bits[name]).not.toBe(printed[i - 1]!.bits[name]);
  }
  expect(has).toContain(cpu().level);
});

test.each([
  ['quick', /LINATTN_CPU must be baseline, avx2, avx512, avx512bf16 or neon, got 'quick'/],
  [process.arch === 'arm64' ? 'avx2' : 'neon', /LINATTN_CPU: this machine cannot run '(avx2|neon)', its best level is/],
])('%s is an error that says so', (level, message) => {
  const { status, stderr } = run(level);
  expect(status).toBe(1);
  expect(stderr).toMatch(message);
});
