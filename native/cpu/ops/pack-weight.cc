// Rows of a matrix into the panels of a packed weight (cpu/weight-layout.h).
#include "ops/pack-weight.h"

#include <algorithm>

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#include "cpu/weight-layout.h"

namespace linattn::cpu {
namespace {

constexpr int64_t kPackInputs = 64;  // taken at a time: even, and whole vectors

// Rows [row0, row1) of the weight, all of one panel; the source begins at row `first`.
struct PackRows {
  WeightLayout layout;
  Tensor source;
  void* weights;
  float* scales;
  int64_t first, row0, row1;
};

// part[column][kPackInputs] to panel[...][32], whose elements are E: bfloat16 goes in pairs, as uint32_t.
template <class E>
void fill_panel(const E* part, int64_t part_width, E* panel, int64_t inputs, int64_t column0, int64_t column1) {
  for (int64_t k = 0; k < inputs; k++) {
    for (int64_t column = column0; column < column1; column++)
      panel[k * kPanel + column] = part[column * part_width + k];
  }
}

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/pack-weight-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

template <class T>
void pack(const PackWeight& op, Cpu& cpu) {
  const int64_t rows = op.source.shape[0];
  const WeightLayout layout(op.dtype, op.source.shape[1], op.group);
  const auto pack_rows = LINATTN_DISPATCH(cpu.level, pack_rows<T>);
  const int64_t first_panel = op.row / kPanel;
  cpu.pool->run(ceil_div(op.row + rows, kPanel) - first_panel, [&](int64_t task, int) {
    const int64_t row0 = (first_panel + task) * kPanel;
    pack_rows({layout, op.source, op.weights.data, op.scales.as<float>(), op.row, std::max(op.row, row0),
               std::min(op.row + rows, row0 + kPanel)});
  });
}

}  // namespace

void run(const PackWeight& op, Cpu& cpu) {
  if (op.source.shape[0] == 0) return;
  with_float_type(op.source.dtype, [&]<class T>(T) { pack<T>(op, cpu); });
}

}  // namespace linattn::cpu
