#include "cuda/device/launch.cuh"
#include "cuda/ops/step-rows.cuh"
#include "ops/commit-step.h"

namespace linattn::cuda {
namespace {

__global__ void __launch_bounds__(kMostStepThreads) commit(StepRows rows, const int32_t* offsets, Findings findings) {
  if (offsets && findings.any()) return;
  if (!rows.all_there()) return;
  rows.for_each([&](int n, StepRow& row) {
    if (!offsets) {
      commit_decode(row);
      return;
    }
    swap_halves(row);
    row.length += offsets[n + 1] - offsets[n];
  });
}

}  // namespace

void run(const CommitStep& op, Cuda& cuda) {
  const StepRows rows = step_rows(op.rows, op.table, cuda);
  if (rows.count == 0) return;
  launch(cuda, commit, dim3(1), dim3(step_threads(rows)), 0, rows, op.offsets.as<const int32_t>(), findings_of(cuda));
}

}  // namespace linattn::cuda
