#include "ops/add.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/add-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const Add& op, Cpu& cpu) {
  const bool flat = op.a.contiguous() && op.b.contiguous() && op.out.contiguous();
  with_float_type(op.a.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, add<T>);
    for_pieces(cpu, op.out, flat, [&](int64_t row, int64_t begin, int64_t end) {
      kernel(op.a.row<T>(row) + begin, op.b.row<T>(row) + begin, op.scale, op.out.row<T>(row) + begin, end - begin);
    });
  });
}

}  // namespace linattn::cpu
