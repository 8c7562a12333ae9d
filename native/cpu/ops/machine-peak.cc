#include "ops/machine-peak.h"

#include "cpu/peaks.h"

namespace linattn::cpu {

void run(const MachinePeak& op, Cpu& cpu) {
  double peak = 0;
  if (op.kind == PeakKind::kMultiplyAdd) peak = multiply_add_peak(cpu);
  if (op.kind == PeakKind::kDotBFloat16) peak = dot_bfloat16_peak(cpu);
  if (op.kind == PeakKind::kRead) {
    peak = read_bandwidth(cpu, op.values.as<float>(), static_cast<size_t>(op.values.size()));
  }
  *op.out.as<float>() = static_cast<float>(peak);
}

}  // namespace linattn::cpu
