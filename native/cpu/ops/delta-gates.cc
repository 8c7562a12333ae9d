#include "ops/delta-gates.h"

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#define LINATTN_KERNELS "cpu/ops/delta-gates-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {

void run(const DeltaGates& op, Cpu& cpu) {
  with_float_type(op.a.dtype, [&]<class T>(T) {
    if (!op.b) {
      const auto kernel = LINATTN_DISPATCH(cpu.level, step_gates<T>);
      for_pieces(cpu, op.g, false, [&](int64_t row, int64_t, int64_t heads) {
        kernel(op.a.row<T>(row), op.a_log.as<float>(), op.dt_bias.as<float>(), op.step_min, op.step_max,
               op.g.row<float>(row), op.beta.row<float>(row), heads);
      });
      return;
    }
    const auto kernel = LINATTN_DISPATCH(cpu.level, delta_gates<T>);
    for_pieces(cpu, op.g, false, [&](int64_t row, int64_t, int64_t heads) {
      kernel(op.a.row<T>(row), op.b.row<T>(row), op.a_log.as<float>(), op.dt_bias.as<float>(), op.beta_scale,
             op.g.row<float>(row), op.beta.row<float>(row), heads);
    });
  });
}

}  // namespace linattn::cpu
