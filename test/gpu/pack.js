// Packs what a bare GPU machine needs beside the repository: this Node and the npm packages of the tests, and with --all the
// repository and the addon that is built here too. Nothing is downloaded there. Prints the archive's path.
//   node test/gpu/pack.js --all && scp build/gpu/linattn.tar.xz box: && ssh box 'tar xf linattn.tar.xz && test/gpu/run.sh'
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const root = path.join(__dirname, '..', '..');
const all = process.argv.includes('--all');
/** For checks that run here. */
const left = [
  '@arethetypeswrong/cli',
  '@biomejs/biome',
  'clang-format-node',
  'publint',
  'node-gyp',
  'playwright-core',
  'openai',
  'ai',
  'bullmq',
  'express',
  'piscina',
  'usearch',
];

const read = (folder) => JSON.parse(fs.readFileSync(path.join(folder, 'package.json')));

/** Folders of the packages that `folder` needs, as Node finds them. */
function needed(folder, found = new Set()) {
  const { dependencies = {}, optionalDependencies = {} } = read(folder);
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    let at = folder;
    let place;
    do {
      place = path.join(at, 'node_modules', name);
      at = path.dirname(at);
    } while (!fs.existsSync(place) && at.length >= root.length);
    if (!fs.existsSync(place) || found.has(place)) continue;
    found.add(place);
    needed(place, found);
  }
  return found;
}

const { dependencies, devDependencies } = read(root);
const packages = new Set();
for (const name of Object.keys({ ...dependencies, ...devDependencies })) {
  if (left.includes(name)) continue;
  const place = path.join(root, 'node_modules', name);
  packages.add(place);
  needed(place, packages);
}
// A package inside a packed one is packed with it.
const files = [...packages].filter((one) => ![...packages].some((outer) => one.startsWith(`${outer}${path.sep}`)));
const folder = path.join(root, 'build', 'gpu');
fs.mkdirSync(folder, { recursive: true });
execFileSync('strip', ['-o', path.join(folder, 'node'), process.execPath]);
const list = ['build/gpu/node', ...files.map((file) => path.relative(root, file))];
if (all) {
  list.push(...execFileSync('git', ['ls-files'], { cwd: root, encoding: 'utf8' }).trim().split('\n'));
  for (const built of ['prebuilds', 'dist']) if (fs.existsSync(path.join(root, built))) list.push(built);
}
const archive = path.join('build', 'gpu', all ? 'linattn.tar.xz' : 'tools.tar.xz');
const env = { ...process.env, XZ_OPT: '-T0 -6' };
// What no test reads: maps, types of other languages' editors, and parts of jest's tools that only its command line needs.
const unread = [
  '*.map',
  '*.md',
  'typescript/lib/*/diagnosticMessages*',
  'uglify-js',
  'handlebars',
  'undici',
  'highlight.js',
];
const without = unread.map((pattern) => `--exclude=${pattern}`);
execFileSync('tar', ['-cJf', archive, ...without, '-T', '-'], {
  cwd: root,
  env,
  input: list.join('\n'),
  stdio: ['pipe', 2, 2],
});
console.log(archive);
