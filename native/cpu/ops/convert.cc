#include "ops/convert.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/convert-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const Convert& op, Cpu& cpu) {
  const Tensor& out = op.into ? op.into : op.out;
  const bool flat = op.x.contiguous() && out.contiguous();
  with_float_type(op.x.dtype, [&]<class From>(From) {
    with_float_type(out.dtype, [&]<class To>(To) {
      const auto kernel = LINATTN_DISPATCH(cpu.level, convert<From, To>);
      for_pieces(cpu, out, flat, [&](int64_t row, int64_t begin, int64_t end) {
        kernel(op.x.row<From>(row) + begin, out.row<To>(row) + begin, end - begin);
      });
    });
  });
}

}  // namespace linattn::cpu
