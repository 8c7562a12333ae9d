// The packed tarball, as a user gets it: installed in an empty folder, required, imported, compiled against and run.
import fs from 'node:fs';
import path from 'node:path';
import { copyOfTree, run, temporaryFolder } from './copy';
import { read, root } from './tree';

const bin = (name: string) => path.join(root, 'node_modules', '.bin', name);
let source: string;
let consumer: string;
let tarball: string;
let packed: string[];

beforeAll(() => {
  source = copyOfTree('pack');
  consumer = temporaryFolder('consumer');
  run(source, 'npm', ['pack', '--pack-destination', consumer]);
  tarball = path.join(consumer, fs.readdirSync(consumer).find((file) => file.endsWith('.tgz'))!);
  packed = run(consumer, 'tar', ['-tzf', tarball])
    .trim()
    .split('\n')
    .map((file) => file.replace(/^package\//, ''));
  fs.writeFileSync(path.join(consumer, 'package.json'), '{"private": true}');
  run(consumer, 'npm', ['install', '--strict-allow-scripts', '--prefer-offline', '--no-audit', '--no-fund', tarball]);
});

afterAll(() => {
  for (const folder of [source, consumer]) fs.rmSync(folder, { recursive: true, force: true });
});

test('holds the compiled library and the binary of this machine', () => {
  expect(packed).toEqual(
    expect.arrayContaining([
      'README.md',
      'LICENSE',
      'dist/index.js',
      'dist/index.mjs',
      'dist/index.d.ts',
      'dist/index.d.mts',
      'dist/cli/main.js',
      'dist/server/playground.html',
      'dist/ai-sdk/index.mjs',
      `prebuilds/${process.platform}-${process.arch}/linattn.node`,
    ]),
  );
});

test('holds no build file, no source, no test', () => {
  expect(
    packed.filter(
      (file) => !/^(dist|prebuilds|models\/default)\/|^(README|CHANGELOG)\.md$|^LICENSE$|^package\.json$/.test(file),
    ),
  ).toEqual([]);
  expect(packed.filter((file) => /\.(gyp|gypi)$/.test(file))).toEqual([]);
});

test('runs no script when it is installed', () => {
  const lock = JSON.parse(fs.readFileSync(path.join(consumer, 'package-lock.json'), 'utf8'));
  const withScripts = Object.entries<{ hasInstallScript?: boolean }>(lock.packages).filter(
    ([, entry]) => entry.hasInstallScript,
  );
  expect(withScripts.map(([name]) => name)).toEqual([]);
  const { scripts } = JSON.parse(fs.readFileSync(path.join(consumer, 'node_modules/linattn/package.json'), 'utf8'));
  expect(Object.keys(scripts).filter((name) => /^(pre|post)?install$|^prepare$/.test(name))).toEqual([]);
});

test('answers require, import and its command', () => {
  const names = run(consumer, process.execPath, ['-p', "Object.keys(require('linattn')).length"]);
  expect(Number(names)).toBeGreaterThan(0);
  const program = "import * as linattn from 'linattn'; console.log(Object.keys(linattn).length)";
  expect(Number(run(consumer, process.execPath, ['--input-type=module', '--eval', program]))).toBeGreaterThan(0);
  const { version } = JSON.parse(read('package.json'));
  expect(run(consumer, path.join('node_modules', '.bin', 'linattn'), ['--version']).trim()).toBe(version);
});

test('generates with the model that it brings, as a library and as a command', () => {
  const program = `
    require('linattn').load().then(async (model) => {
      const { text } = await model.generate({ prompt: 'The ship', maxTokens: 12, temperature: 0 }).result;
      console.log(JSON.stringify(text));
    });`;
  const text = JSON.parse(run(consumer, process.execPath, ['--eval', program]));
  expect(text).not.toBe('');
  const args = ['generate', '-p', 'The ship', '--max-tokens', '12', '--temperature', '0'];
  expect(run(consumer, path.join('node_modules', '.bin', 'linattn'), args)).toBe(text);
});

// With no types of its own named, a consumer that has @types/node gets what the declarations need of it.
test.each(['node10', 'node16', 'nodenext', 'bundler'])('types compile with moduleResolution %s', (moduleResolution) => {
  const module = { node10: 'commonjs', node16: 'node16', nodenext: 'nodenext', bundler: 'esnext' }[moduleResolution]!;
  const types = path.join(consumer, 'node_modules', '@types', 'node');
  if (!fs.existsSync(types)) {
    fs.mkdirSync(path.dirname(types), { recursive: true });
    fs.symlinkSync(path.join(root, 'node_modules', '@types', 'node'), types, 'dir');
  }
  const compilerOptions = { module, moduleResolution, target: 'es2022', types: [], strict: true, noEmit: true };
  fs.writeFileSync(path.join(consumer, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['use.ts'] }));
  fs.writeFileSync(
    path.join(consumer, 'use.ts'),
    "import * as linattn from 'linattn';\nexport const names: string[] = Object.keys(linattn);\n",
  );
  expect(run(consumer, bin('tsc'), ['--project', '.'])).toBe('');
});

test('publint and are-the-types-wrong find nothing', () => {
  expect(run(source, bin('publint'), ['run', tarball, '--strict'])).toMatch(/All good/);
  expect(run(source, bin('attw'), [tarball, '--profile', 'node16'])).toMatch(/No problems found/);
});
