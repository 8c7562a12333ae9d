#include "cuda/device/launch.cuh"
#include "cuda/ops/step-rows.cuh"
#include "ops/begin-step.h"

namespace linattn::cuda {
namespace {

struct StepOutputs {
  int32_t *read_slots, *write_slots, *positions, *next_positions, *tokens;
};

__global__ void __launch_bounds__(kMostStepThreads) begin(StepRows rows, const int32_t* offsets, StepOutputs out) {
  wait_for_inputs();
  if (!rows.all_there()) return;
  for (int n = static_cast<int>(threadIdx.x); n < rows.count; n += static_cast<int>(blockDim.x)) {
    const int tokens = offsets[n + 1] - offsets[n];
    StepRow row{-1, -1, 0, 0, 0, 0, 0, 0, -1, 0, {}};
    if (rows.slots[n] >= 0) {
      StepRow& kept = rows.at(rows.slots[n]);
      commit_decode(kept);
      row = kept;
      if (out.tokens && !row.live) {
        row.read = row.write = -1;
      } else {
        kept.processed += tokens;
      }
    }
    out.read_slots[n] = row.read;
    out.write_slots[n] = row.write;
    out.positions[n] = row.length;
    out.next_positions[n] = row.length + tokens;
    if (out.tokens) out.tokens[n] = row.token;
  }
}

}  // namespace

void run(const BeginStep& op, Cuda& cuda) {
  const StepRows rows = step_rows(op.rows, op.table, cuda);
  if (rows.count == 0) return;
  const StepOutputs out = {op.read_slots.as<int32_t>(), op.write_slots.as<int32_t>(), op.positions.as<int32_t>(),
                           op.next_positions.as<int32_t>(), op.tokens.as<int32_t>()};
  launch_early(cuda, begin, dim3(1), dim3(step_threads(rows)), 0, rows, op.offsets.as<const int32_t>(), out);
}

}  // namespace linattn::cuda
