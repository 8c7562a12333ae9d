#include "ops/layer-norm.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

struct Moments {
  double first, second;
};

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/layer-norm-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const LayerNorm& op, Cpu& cpu) {
  const int64_t width = op.x.inner(), weights = op.weight.shape[0];
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, layer_norm<T>);
    for_rows(cpu, op.x.shape[0], width, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        for (int64_t o = 0; o < width; o += op.group_size) {
          kernel(op.x.row<T>(row) + o, op.weight.as<float>() + o % weights,
                 op.bias ? op.bias.as<float>() + o % weights : nullptr, op.out.row<T>(row) + o, op.group_size, op.eps);
        }
      }
    });
  });
}

}  // namespace linattn::cpu
