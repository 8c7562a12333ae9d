#include "ops/favor-features.h"

#include <algorithm>

#include "cpu/row-tasks.h"
#include "cpu/sequence-slots.h"
#include "cpu/simd.h"

#define LINATTN_WITHOUT_BF16
#define LINATTN_KERNELS "cpu/ops/favor-features-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

// Row peaks become those of the sequence so far, or of the whole sequence.
void spread_peaks(const FavorFeatures& op, int64_t n, int64_t head) {
  const int64_t H = op.x.shape[1];
  const auto* const offsets = op.sequences.offsets.as<int32_t>();
  const int32_t read = op.sequences.read_slots.as<int32_t>()[n], write = op.sequences.write_slots.as<int32_t>()[n];
  float* const peak = op.peak.as<float>() + head;
  float top = op.key_max && read >= 0 ? op.key_max.row<float>(read)[head] : -std::numeric_limits<float>::infinity();
  if (op.maximum == FavorMaximum::kSequence) {
    for (int64_t t = offsets[n]; t < offsets[n + 1]; t++) top = std::max(top, peak[t * H]);
    for (int64_t t = offsets[n]; t < offsets[n + 1]; t++) peak[t * H] = top;
    return;
  }
  for (int64_t t = offsets[n]; t < offsets[n + 1]; t++) {
    const float next = std::max(top, peak[t * H]);
    const float own = op.decay ? op.decay.as<float>()[(op.decay.rank == 1 ? 0 : t * op.decay.stride0) + head] : 0;
    op.log_decay.as<float>()[t * H + head] = (next == top ? 0 : top - next) + own;
    peak[t * H] = top = next;
  }
  if (op.key_max && write >= 0) op.key_max.row<float>(write)[head] = top;
}

}  // namespace

void run(const FavorFeatures& op, Cpu& cpu) {
  check_offsets(op.kName, op.sequences);
  if (op.key_max) check_slots(op.kName, op.sequences, op.key_max.shape[0]);
  const int64_t H = op.x.shape[1], rows = op.x.shape[0] * H, width = op.out.shape[2];
  with_float_type(op.x.dtype, [&]<class T>(T) {
    const auto peak_of = LINATTN_DISPATCH(cpu.level, favor_peak<T>);
    const auto features_of = LINATTN_DISPATCH(cpu.level, favor_row<T>);
    const auto each_row = [&](auto&& body) {
      for_rows(cpu, rows, width, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) body(row);
      });
    };
    if (op.maximum == FavorMaximum::kNone) return each_row([&](int64_t row) { features_of(op, row, 0); });
    if (op.maximum == FavorMaximum::kToken) {
      return each_row([&](int64_t row) { features_of(op, row, peak_of(op, row)); });
    }
    each_row([&](int64_t row) { op.peak.as<float>()[row] = peak_of(op, row); });
    cpu.pool->run(op.sequences.rows * H, [&](int64_t task, int) { spread_peaks(op, task / H, task % H); });
    each_row([&](int64_t row) { features_of(op, row, op.peak.as<float>()[row]); });
  });
}

}  // namespace linattn::cpu
