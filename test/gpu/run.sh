#!/usr/bin/env bash
# On a GPU machine, in the repository: unpacks the tools that pack.js packed, builds what is not built, and runs a command
# with that Node in PATH; without one, the tests on the GPU. --side-by-side runs these in several processes at once and prints
# one total; its further arguments are suite.js's.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=build/gpu/tools.tar.xz
if [ -f "$tools" ] && [ ! "build/gpu/node" -nt "$tools" ]; then
  tar -xJf "$tools"
  touch build/gpu/node
fi
[ -x build/gpu/node ] && export PATH="$PWD/build/gpu:$PATH"
if [ ! -f prebuilds/linux-x64/linattn-cuda.so ]; then
  # For the GPU that is here.
  node native/build.js
fi
[ -d dist ] || node node_modules/typescript/bin/tsc -p tsconfig.build.json
if [ "${1-}" = --side-by-side ]; then set -- node test/gpu/suite.js "${@:2}"; fi
if (($# == 0)); then set -- node node_modules/jest/bin/jest.js --config jest.cuda.config.js; fi
exec "$@"
