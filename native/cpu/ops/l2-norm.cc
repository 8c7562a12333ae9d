#include "ops/l2-norm.h"

#include <algorithm>

#include "cpu/cpu.h"
#include "cpu/simd.h"

#define LINATTN_WITHOUT_BF16
#define LINATTN_KERNELS "cpu/ops/l2-norm-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const L2Norm& op, Cpu& cpu) {
  const int64_t rows = op.x.shape[0] * op.x.shape[1];
  const auto kernel = op.x.dtype == DType::kFloat32    ? LINATTN_DISPATCH(cpu.level, l2_norm<float>)
                      : op.x.dtype == DType::kBFloat16 ? LINATTN_DISPATCH(cpu.level, l2_norm<bfloat16>)
                                                       : LINATTN_DISPATCH(cpu.level, l2_norm<float16>);
  const int64_t block = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, op.x.shape[2]));
  cpu.pool->run((rows + block - 1) / block, [&](int64_t task, int) {
    kernel(op.x, op.out, op.scale, op.eps, task * block, std::min(rows, (task + 1) * block));
  });
}

}  // namespace linattn::cpu
