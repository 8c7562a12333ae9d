#include "ops/gated-activation.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/gated-activation-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const GatedActivation& op, Cpu& cpu) {
  const int64_t fused = op.gate ? 0 : op.out.inner();  // where x starts in a row that holds gate and x
  const Tensor& gate = op.gate ? op.gate : op.x;
  const bool flat =
      op.gate && op.x.contiguous() && gate.contiguous() && op.out.contiguous() && (!op.base || op.base.contiguous());
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, gated_activation<T>);
    for_pieces(cpu, op.out, flat, [&](int64_t row, int64_t begin, int64_t end) {
      kernel(op.activation, op.x.row<T>(row) + fused + begin, gate.row<T>(row) + begin,
             op.base ? op.base.row<T>(row) + begin : nullptr, op.out.row<T>(row) + begin, end - begin);
    });
  });
}

}  // namespace linattn::cpu
