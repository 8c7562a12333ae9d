#include "cuda/device/launch.cuh"
#include "cuda/ops/step-rows.cuh"
#include "ops/end-step.h"

namespace linattn::cuda {
namespace {

struct StopIds {
  const int32_t* ids;
  int64_t stride;
  int count;
};

__global__ void __launch_bounds__(kMostStepThreads)
    end(StepRows rows, const int32_t* sampled, StopIds stops, bool consumed, Findings findings) {
  wait_for_inputs();
  if (findings.any() || !rows.all_there()) return;
  rows.for_each([&](int n, StepRow& row) {
    if (consumed && !row.live) return;
    const int32_t token = sampled[n];
    if (consumed) {
      row.next_token = token;
      row.uncommitted = 1;
    } else {
      row.token = token;
    }
    const int32_t* own = stops.ids + rows.slots[n] * stops.stride;
    bool stopped = --row.remaining <= 0;
    for (int i = 0; i < stops.count; i++) stopped |= own[i] == token;
    if (stopped) row.live = 0;
  });
}

}  // namespace

void run(const EndStep& op, Cuda& cuda) {
  const StepRows rows = step_rows(op.rows, op.table, cuda);
  if (rows.count == 0) return;
  const StopIds stops = {op.stop_ids.as<const int32_t>(), op.stop_ids.stride0, static_cast<int>(op.stop_ids.shape[1])};
  launch_early(cuda, end, dim3(1), dim3(step_threads(rows)), 0, rows, op.sampled.as<const int32_t>(), stops,
               op.consumed != 0, findings_of(cuda));
}

}  // namespace linattn::cuda
