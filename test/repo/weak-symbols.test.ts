// Of equal weak functions (inline, template) the linker keeps one copy. Were a copy compiled inside a region for newer
// instructions the one kept, code for every machine would crash on old ones: no weak symbol may hold VEX or EVEX code.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { root } from './tree';

const build = path.join(root, 'build');
const objects = fs.existsSync(build)
  ? fs
      .readdirSync(build, { recursive: true, encoding: 'utf8' })
      .filter((file) => /native[\\/](core|cpu|ops)[\\/].*\.o$/.test(file))
      .map((file) => path.join(build, file))
  : [];

const run = (tool: string, args: string[]) => execFileSync(tool, args, { encoding: 'utf8', maxBuffer: 1 << 30 });
// Mnemonics of VEX and EVEX encodings: all that begin with v, mask registers, BMI1 and BMI2.
const vex =
  /^(v\w+|k(mov|or|and|xor|not|shift|unpck|test|add)\w*|andn|bextr|bls(i|r|msk)|bzhi|mulx|pdep|pext|rorx|s[ah]lx|s[ah]rx)$/;

function functionsWithVex(object: string): Set<string> {
  const found = new Set<string>();
  let current = '';
  for (const line of run('objdump', ['-d', '--no-show-raw-insn', object]).split('\n')) {
    const start = /^[0-9a-f]+ <(.+)>:$/.exec(line);
    if (start) current = start[1]!;
    else if (vex.test(/^\s+[0-9a-f]+:\s+(\S+)/.exec(line)?.[1] ?? '')) found.add(current);
  }
  return found;
}

// Types W and V are weak, u is unique across the process: all three may be merged with other copies.
const weakSymbols = (object: string): string[] =>
  [...run('nm', ['--defined-only', object]).matchAll(/^\S* ?[WwVvu] (\S+)$/gm)].map((match) => match[1]!);

describe('objects of native/core, native/cpu and native/ops', () => {
  const rows = objects.map((object) => ({ object, vexed: functionsWithVex(object), weak: weakSymbols(object) }));

  test('there are some: npm run build makes them', () => {
    expect(rows.length).toBeGreaterThan(0);
    expect(rows.flatMap((row) => row.weak).length).toBeGreaterThan(0);
    if (process.arch === 'x64') expect(rows.flatMap((row) => [...row.vexed]).length).toBeGreaterThan(0);
  });

  test('no weak symbol holds VEX or EVEX code', () => {
    const bad = rows.flatMap(({ object, vexed, weak }) =>
      weak.filter((name) => vexed.has(name)).map((name) => `${path.basename(object)}: ${name}`),
    );
    expect(bad).toEqual([]);
  });
});
