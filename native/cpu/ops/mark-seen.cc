#include "ops/mark-seen.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "cpu/cpu.h"

namespace linattn::cpu {
namespace {

void check_index(const char* name, int64_t i, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  throw Error("ERR_ARGUMENT", std::string("markSeen: ") + name + "[" + std::to_string(i) + "] must be from " +
                                  std::to_string(low) + " to " + std::to_string(high) + ", got " +
                                  std::to_string(value));
}

}  // namespace

void run(const MarkSeen& op, Cpu&) {
  const int64_t rows = op.rows.shape[0], words = op.seen.shape[1];
  const auto* slots = op.rows.as<int32_t>();
  const auto* offsets = op.offsets.as<int32_t>();
  const auto* tokens = op.tokens.as<int32_t>();
  // Everything is checked before the first write, so that a mistake changes nothing.
  for (int64_t n = 0; n < rows; n++) {
    check_index("rows", n, slots[n], -1, op.seen.shape[0] - 1);
    check_index("offsets", n, offsets[n], 0, op.tokens.shape[0]);
    check_index("offsets", n + 1, offsets[n + 1], offsets[n], op.tokens.shape[0]);
    if (slots[n] < 0) continue;
    for (int64_t t = offsets[n]; t < offsets[n + 1]; t++) check_index("tokens", t, tokens[t], 0, op.vocab - 1);
  }
  for (int64_t n = 0; n < rows; n++) {
    if (slots[n] < 0) continue;
    auto* row = op.seen.row<uint32_t>(slots[n]);
    if (op.clear) std::fill(row, row + words, 0u);
    for (int64_t t = offsets[n]; t < offsets[n + 1]; t++) row[tokens[t] / 32] |= 1u << (tokens[t] % 32);
  }
}

}  // namespace linattn::cpu
