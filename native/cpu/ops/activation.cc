#include "ops/activation.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/activation-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const Activation& op, Cpu& cpu) {
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, activation<T>);
    for_pieces(cpu, op.out, op.x.contiguous() && op.out.contiguous(), [&](int64_t row, int64_t begin, int64_t end) {
      kernel(op.activation, op.x.row<T>(row) + begin, op.scale, op.out.row<T>(row) + begin, end - begin);
    });
  });
}

}  // namespace linattn::cpu
