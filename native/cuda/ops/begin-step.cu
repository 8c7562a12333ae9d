#include "cuda/device/launch.cuh"
#include "cuda/ops/begin-step.cuh"

namespace linattn::cuda {
namespace {

__global__ void __launch_bounds__(kMostStepThreads) begin(BeginView x) {
  wait_for_inputs();
  x.begin();
}

}  // namespace

void run(const BeginStep& op, Cuda& cuda) {
  const BeginView x = begin_view(op, cuda);
  if (x.rows.count == 0) return;
  launch_early(cuda, begin, dim3(1), dim3(step_threads(x.rows)), 0, x);
}

}  // namespace linattn::cuda
