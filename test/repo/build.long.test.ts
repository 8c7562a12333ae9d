// CMake and node-gyp build the same addon of the one list of sources: same exports, same ops, same bits.
import fs from 'node:fs';
import path from 'node:path';
import { copyOfTree, run } from './copy';
import { root } from './tree';

const program = `
  const addon = require('./prebuilds/' + process.platform + '-' + process.arch + '/linattn.node');
  const { Tensor, ops } = require('./dist');
  const x = Tensor.from(Array.from({ length: 96 }, (_, i) => Math.sin(i)), { dtype: 'float32', shape: [3, 32] });
  const weight = Tensor.from(Array.from({ length: 32 }, (_, i) => Math.cos(i)), { dtype: 'float32', shape: [32] });
  const names = Object.keys(addon).sort();
  const list = addon.ops.map((op) => op.name + '(' + op.fields.map((field) => field.name + ': ' + field.kind) + ')');
  ops.rmsNorm({ x, weight, eps: 1e-6 }).read().then((out) => {
    console.log(JSON.stringify({ names, ops: list, bits: Buffer.from(out.buffer).toString('hex') }));
  });
`;

function build(builder: 'cmake' | 'node-gyp') {
  const folder = copyOfTree(builder);
  try {
    run(folder, process.execPath, ['native/build.js'], { LINATTN_BUILD: builder });
    expect(fs.existsSync(path.join(folder, 'build', builder === 'cmake' ? 'CMakeCache.txt' : 'config.gypi'))).toBe(
      true,
    );
    run(folder, path.join(root, 'node_modules', '.bin', 'tsc'), ['-p', 'tsconfig.build.json']);
    return JSON.parse(run(folder, process.execPath, ['--eval', program]));
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

test('both build, load, and give the same names and bits', () => {
  const cmake = build('cmake');
  const gyp = build('node-gyp');
  expect(cmake.names.length).toBeGreaterThan(0);
  expect(cmake.ops.length).toBeGreaterThan(0);
  expect(cmake.bits).toHaveLength(96 * 8);
  expect(gyp).toEqual(cmake);
});

test('what is missing is named, with the way to get it', () => {
  const nothing = { PATH: path.join(root, 'test'), CXX: '', LINATTN_BUILD: 'node-gyp', PYTHON: 'no-such-python' };
  expect(() => run(root, process.execPath, ['native/build.js'], nothing)).toThrow(
    /C\+\+20 compiler is missing: .*apt install g\+\+.*make is missing: .*apt install make.*python3 is missing/s,
  );
  expect(() => run(root, process.execPath, ['native/build.js'], { LINATTN_BUILD: 'ninja' })).toThrow(
    'LINATTN_BUILD is "ninja": it must be cmake, node-gyp or auto.',
  );
  const folder = copyOfTree('bare');
  fs.unlinkSync(path.join(folder, 'node_modules'));
  try {
    expect(() => run(folder, process.execPath, ['native/build.js'])).toThrow(
      /missing npm packages \(typescript, .*\): run `npm ci` with its development dependencies\./,
    );
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
