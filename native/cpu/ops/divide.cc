#include "ops/divide.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/divide-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const Divide& op, Cpu& cpu) {
  const int64_t heads = op.x.shape[1], width = op.x.shape[2];
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, divide<T>);
    for_pieces(cpu, op.out, false, [&](int64_t row, int64_t, int64_t) {
      const float *const divisor = op.divisor.row<float>(row), *const floor = op.floor.row<float>(row);
      for (int64_t h = 0; h < heads; h++) {
        kernel(op.x.row<T>(row) + h * width, divisor[h], floor[h], op.eps, op.out.row<T>(row) + h * width, width);
      }
    });
  });
}

}  // namespace linattn::cpu
