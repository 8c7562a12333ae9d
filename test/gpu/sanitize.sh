#!/usr/bin/env bash
# On a GPU machine: tests of ops under compute-sanitizer, each file with a time limit, and one line for each.
#   test/gpu/sanitize.sh [--tool memcheck|racecheck|initcheck|synccheck] [--seconds 40] [--at-once 6] [--tests PATTERN] FILE...
# Without files, every file of test/ops and test/cuda. --tests is jest's filter of test names: a kernel under racecheck is
# a hundred times slower, so take the small shapes. "clean" means that the file's tests ended and the tool found nothing;
# "clean so far" that time ran out first. Logs are in build/gpu.
set -uo pipefail
cd "$(dirname "$0")/../.."
tool=memcheck seconds=40 at_once=6 tests=''
while [[ ${1-} == --* ]]; do
  case $1 in
    --tool) tool=$2 ;;
    --seconds) seconds=$2 ;;
    --at-once) at_once=$2 ;;
    --tests) tests=$2 ;;
    *) echo "sanitize.sh: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
if (($# == 0)); then set -- test/ops/*.test.ts test/cuda/*.test.ts; fi
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
mkdir -p build/gpu
export REQUIRE_CUDA=1

check() {
  local file=$1 name log status verdict found ended
  name=$(basename "$(dirname "$file")")/$(basename "$file" .test.ts)
  log=build/gpu/$tool-${name//\//-}.log
  ended=${log%.log}.jsonl
  : >"$ended"
  LINATTN_RESULTS=$ended timeout -k 2 "$seconds" "$sanitizer" --tool "$tool" --kernel-name kns=linattn \
    --error-exitcode 9 --print-limit 20 node node_modules/jest/bin/jest.js --config jest.cuda.config.js --runInBand \
    --testTimeout 600000 --reporters default --reporters ./test/gpu/results-reporter.js \
    ${tests:+--testNamePattern "$tests"} --runTestsByPath "$file" >"$log" 2>&1
  status=$?
  # Its summary when it ends, its reports so far when it is cut off. A test without kernels is no error.
  found=$(sed -nE 's/^=+ (ERROR|RACECHECK) SUMMARY: ([0-9]+).*/\2/p' "$log" | tail -n 1)
  if [ -z "$found" ]; then
    found=$(grep -E '^=+ (Invalid|Error|Warning|Uninitialized|Barrier|Program hit)' "$log" | grep -vc 'before first instr')
  fi
  if ((found > 0)); then verdict="NOT CLEAN: $found reports"; fi
  if ((found == 0 && (status == 124 || status == 137))); then verdict="clean so far, not ended after $seconds s"; fi
  if ((found == 0)) && grep -qE '^=+ (ERROR|RACECHECK) SUMMARY|before first instrumented' "$log"; then verdict=clean; fi
  if ! grep -q '"status"' "$ended"; then verdict="no test ended"; fi
  printf '%s %-32s %s; tests: %s passed, %s failed\n' "$tool" "$name" "${verdict:-exit $status}" \
    "$(grep -c '"status":"passed"' "$ended")" "$(grep -c '"status":"failed"' "$ended")"
}

verdicts=build/gpu/$tool.txt
: >"$verdicts"
for file in "$@"; do
  while (($(jobs -rp | wc -l) >= at_once)); do wait -n; done
  check "$file" | tee -a "$verdicts" &
done
wait
! grep -qE 'NOT CLEAN|no test ended|exit|, [1-9][0-9]* failed' "$verdicts"
