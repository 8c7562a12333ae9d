#include "ops/weighted-sum.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/weighted-sum-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const WeightedSum& op, Cpu& cpu) {
  const int64_t k = op.weights.shape[1];
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, weighted_sum<T>);
    for_pieces(cpu, op.out, false, [&](int64_t row, int64_t, int64_t n) {
      kernel(op.x.row<T>(row * k), op.x.stride0, op.weights.row<float>(row), k, op.base ? op.base.row<T>(row) : nullptr,
             op.out.row<T>(row), n);
    });
  });
}

}  // namespace linattn::cpu
