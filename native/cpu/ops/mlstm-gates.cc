#include "ops/mlstm-gates.h"

#include "cpu/row-tasks.h"
#include "cpu/sequence-slots.h"
#include "cpu/simd.h"

#define LINATTN_KERNELS "cpu/ops/mlstm-gates-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

// Along a sequence: g from log f, key_scale from a to a - m, floor = -m.
void spread_maximum(const MlstmGates& op, int64_t n, int64_t head) {
  const int64_t H = op.g.shape[1];
  const auto* const offsets = op.sequences.offsets.as<int32_t>();
  const int32_t read = op.sequences.read_slots.as<int32_t>()[n], write = op.sequences.write_slots.as<int32_t>()[n];
  float m = op.maximum && read >= 0 ? op.maximum.row<float>(read)[head] : op.start();
  for (int64_t t = offsets[n]; t < offsets[n + 1]; t++) {
    float &g = op.g.as<float>()[t * H + head], &a = op.key_scale.as<float>()[t * H + head];
    const float kept = g + m;
    m = kept < a ? a : kept;
    g = kept - m;
    a -= m;
    op.floor.as<float>()[t * H + head] = -m;
  }
  if (op.maximum && write >= 0) op.maximum.row<float>(write)[head] = m;
}

}  // namespace

void run(const MlstmGates& op, Cpu& cpu) {
  check_offsets(op.kName, op.sequences);
  if (op.maximum) check_slots(op.kName, op.sequences, op.maximum.shape[0]);
  const int64_t H = op.g.shape[1];
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto logarithms = LINATTN_DISPATCH(cpu.level, mlstm_logarithms<T>);
    for_pieces(cpu, op.g, false, [&](int64_t row, int64_t, int64_t) {
      logarithms(op.x.row<T>(row), op.bias.as<float>(), op.cap, op.exponential, op.key_scale.row<float>(row),
                 op.g.row<float>(row), H);
    });
  });
  cpu.pool->run(op.sequences.rows * H, [&](int64_t task, int) { spread_maximum(op, task / H, task % H); });
  const auto exponentials = LINATTN_DISPATCH(cpu.level, mlstm_exponentials);
  for_pieces(cpu, op.g, true, [&](int64_t, int64_t begin, int64_t end) {
    exponentials(op.key_scale.as<float>() + begin, op.scale, end - begin);
    exponentials(op.floor.as<float>() + begin, 1, end - begin);
  });
}

}  // namespace linattn::cpu
