#include "cuda/ops/delta-gates.cuh"

namespace linattn::cuda {

void run(const DeltaGates& op, Cuda& cuda) {
  for_float(op.a.dtype, [&](auto t) {
    elementwise<4>(cuda, {op.a, op.b ? op.b : op.a, op.g, op.beta}, delta_gates_body<decltype(t)>(op), true);
  });
}

}  // namespace linattn::cuda
