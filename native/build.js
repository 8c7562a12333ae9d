// Builds the addon into prebuilds/<platform>-<arch>/linattn.node, its one place: CMake where it is installed, else node-gyp.
// --debug builds without optimisation. Environment: LINATTN_BUILD=cmake|node-gyp forces one; LINATTN_CUDA=AUTO|ON|OFF and
// LINATTN_CUDA_ARCHITECTURES (90a-real, say) are passed to CMake; LINATTN_CUDA_EMULATOR=1 also builds the CUDA backend for
// the CPU (native/cuda/emulator), which stays in the build folder; LINATTN_TESTS=1 builds native/test too;
// LINATTN_SANITIZE=1 builds all with AddressSanitizer and UndefinedBehaviorSanitizer, into build-asan;
// LINATTN_SANITIZE=thread with ThreadSanitizer, into build-tsan.
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.join(__dirname, '..');
const env = process.env;
const debug = process.argv.includes('--debug');
const sanitize = { 1: 'ON', thread: 'thread' }[env.LINATTN_SANITIZE];
const tests = env.LINATTN_TESTS === '1';
const answers = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
const installed = (id) => fs.existsSync(path.join(root, 'node_modules', id, 'package.json'));

function fail(...sentences) {
  for (const sentence of sentences) console.error(`linattn: ${sentence}`);
  process.exit(1);
}

function chooseBuilder() {
  const asked = env.LINATTN_BUILD || 'auto';
  if (!['auto', 'cmake', 'node-gyp'].includes(asked)) {
    fail(`LINATTN_BUILD is "${asked}": it must be cmake, node-gyp or auto.`);
  }
  const builder = asked === 'auto' ? (answers('cmake') ? 'cmake' : 'node-gyp') : asked;
  if (sanitize && builder !== 'cmake')
    fail('LINATTN_SANITIZE needs CMake: install it, for example `apt install cmake`.');
  return builder;
}

function missing(builder) {
  const list = [];
  const need = (present, sentence) => present || list.push(sentence);
  const packages = ['typescript', 'node-addon-api', 'node-api-headers', builder === 'cmake' ? 'cmake-js' : 'node-gyp'];
  const absent = packages.filter((id) => !installed(id));
  need(
    absent.length === 0,
    `missing npm packages (${absent.join(', ')}): run \`npm ci\` with its development dependencies.`,
  );
  if (builder === 'cmake') need(answers('cmake'), 'CMake is missing: install it, for example `apt install cmake`.');
  if (process.platform === 'win32') return list; // cmake-js and node-gyp look for Visual Studio themselves
  const compilers = [env.CXX?.split(' ').at(-1), 'c++', 'g++', 'clang++'].filter(Boolean);
  need(
    compilers.some(answers),
    'a C++20 compiler is missing: install g++ 11 or clang 14 or newer, for example `apt install g++`.',
  );
  need(
    answers('make') || (builder === 'cmake' && answers('ninja')),
    'make is missing: install it, for example `apt install make`.',
  );
  if (builder === 'node-gyp') {
    need(
      answers(env.PYTHON || 'python3'),
      'python3 is missing, which node-gyp needs: `apt install python3`, or install CMake.',
    );
  }
  return list;
}

function run(id, script, args, extraEnv = {}) {
  const { status } = spawnSync(process.execPath, [path.join(root, 'node_modules', id, script), ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { CCACHE_BASEDIR: root, CCACHE_NOHASHDIR: '1', ...env, ...extraEnv }, // a copy of the tree hits the same cache
  });
  if (status !== 0) fail(`${id} ${args[0]} failed; its messages are above.`);
}

const jobs = String(os.availableParallelism());
const config = debug ? 'Debug' : 'Release';

// Like buildWithNodeGyp, returns the folder that holds linattn.node.
function buildWithCmake() {
  const out = sanitize === 'thread' ? 'build-tsan' : sanitize ? 'build-asan' : debug ? 'build-debug' : 'build';
  if (fs.existsSync(path.join(root, out, 'config.gypi'))) fs.rmSync(path.join(root, out), { recursive: true }); // node-gyp's
  const options = ['--log-level', 'warn', '--out', out, `--CDLINATTN_CUDA=${env.LINATTN_CUDA || 'AUTO'}`];
  options.push(`--CDLINATTN_SANITIZE=${sanitize ?? 'OFF'}`, `--CDLINATTN_TESTS=${tests ? 'ON' : 'OFF'}`);
  options.push(`--CDLINATTN_CUDA_EMULATOR=${env.LINATTN_CUDA_EMULATOR === '1' ? 'ON' : 'OFF'}`);
  if (env.LINATTN_CUDA_ARCHITECTURES) options.push(`--CDLINATTN_CUDA_ARCHITECTURES=${env.LINATTN_CUDA_ARCHITECTURES}`);
  if (debug) options.push('--debug');
  run('cmake-js', 'bin/cmake-js', ['configure', ...options]);
  run('cmake-js', 'bin/cmake-js', ['build', ...options, '--parallel', jobs]);
  return path.join(root, out, config);
}

function buildWithNodeGyp() {
  const args = ['rebuild', '--jobs', jobs, debug ? '--debug' : '--release'];
  const prefix = path.resolve(fs.realpathSync(process.execPath), '..', '..');
  if (fs.existsSync(path.join(prefix, 'include', 'node', 'node_api.h'))) args.push(`--nodedir=${prefix}`); // no download
  run('node-gyp', 'bin/node-gyp.js', args, answers('ccache') ? { CXX: `ccache ${env.CXX || 'c++'}` } : {});
  return path.join(root, 'build', config);
}

// A process that has the old file open keeps it, and none sees half a file.
function publish(from, name) {
  const folder = path.join(root, 'prebuilds', `${process.platform}-${process.arch}`);
  fs.mkdirSync(folder, { recursive: true });
  const temporary = path.join(folder, `${name}.${process.pid}`);
  fs.copyFileSync(path.join(from, name), temporary);
  fs.renameSync(temporary, path.join(folder, name));
  console.log(`linattn: ${path.relative(root, path.join(folder, name))}`);
}

const builder = chooseBuilder();
const absent = missing(builder);
if (absent.length > 0) fail(...absent);
const folder = builder === 'cmake' ? buildWithCmake() : buildWithNodeGyp();
if (!sanitize) {
  publish(folder, 'linattn.node');
  if (fs.existsSync(path.join(folder, 'linattn-cuda.so'))) publish(folder, 'linattn-cuda.so');
}
