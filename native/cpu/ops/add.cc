#include "ops/add.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/add-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

template <class T>
const T* at(const Tensor& a, int64_t row, int64_t column) {
  return a ? a.row<T>(row) + column : nullptr;
}

}  // namespace

void run(const Add& op, Cpu& cpu) {
  const bool flat = !op.scales && (!op.a || op.a.contiguous()) && op.b.contiguous() && op.out.contiguous();
  with_float_type(op.b.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, add<T>);
    if (!op.scales) {
      for_pieces(cpu, op.out, flat, [&](int64_t row, int64_t begin, int64_t end) {
        kernel(at<T>(op.a, row, begin), op.b.row<T>(row) + begin, op.scale, op.out.row<T>(row) + begin, end - begin);
      });
      return;
    }
    const int64_t heads = op.b.shape[1], width = op.b.shape[2];
    for_pieces(cpu, op.out, false, [&](int64_t row, int64_t, int64_t) {
      const float* scales = op.scales.rank == 1 ? op.scales.as<float>() : op.scales.row<float>(row);
      for (int64_t h = 0; h < heads; h++) {
        kernel(at<T>(op.a, row, h * width), op.b.row<T>(row) + h * width, scales[h], op.out.row<T>(row) + h * width,
               width);
      }
    });
  });
}

}  // namespace linattn::cpu
