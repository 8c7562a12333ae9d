#include "ops/feature-map.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"

#define LINATTN_WITHOUT_BF16
#define LINATTN_KERNELS "cpu/ops/feature-map-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const FeatureMap& op, Cpu& cpu) {
  const int64_t room = 3 * op.x.shape[2] + op.order;
  float* const memory = cpu.scratch_of<float>(static_cast<size_t>(room * cpu.pool->threads()));
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto kernel = LINATTN_DISPATCH(cpu.level, feature_map<T>);
    for_rows(cpu, op.x.shape[0] * op.x.shape[1], op.out.shape[2],
             [&](int64_t begin, int64_t end, int thread) { kernel(op, begin, end, memory + thread * room); });
  });
}

}  // namespace linattn::cpu
