#include "ops/copy-slots.h"

#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/cpu.h"

namespace linattn::cpu {
namespace {

constexpr int64_t kPieceBytes = 256 * 1024;

struct Copy {
  int32_t from, to;
};

// Every `to` is written once and read by none, so the order of the copies does not matter.
std::vector<Copy> read_copies(const CopySlots& op) {
  const int64_t slots = op.pool.shape[0];
  const auto check_slot = [&](const char* name, int64_t i, int32_t slot) {
    if (slot < slots && slot >= -1) return;
    throw Error("ERR_ARGUMENT", std::string("copySlots: ") + name + "[" + std::to_string(i) + "] must be below " +
                                    std::to_string(slots) + " and at least -1, got " + std::to_string(slot));
  };
  std::vector<Copy> copies;
  std::vector<bool> read(static_cast<size_t>(slots)), written(static_cast<size_t>(slots));
  for (int64_t i = 0; i < op.from.shape[0]; i++) {
    const int32_t from = op.from.as<int32_t>()[i], to = op.to.as<int32_t>()[i];
    check_slot("from", i, from);
    check_slot("to", i, to);
    op.copied.as<int32_t>()[i] = from < 0 ? -1 : to;
    if (from < 0 || to < 0) continue;
    copies.push_back({from, to});
    if (written[static_cast<size_t>(to)]) {
      throw Error("ERR_ARGUMENT", "copySlots: to[" + std::to_string(i) + "] repeats slot " + std::to_string(to));
    }
    read[static_cast<size_t>(from)] = true;
    written[static_cast<size_t>(to)] = true;
  }
  for (const Copy& copy : copies) {
    if (!read[static_cast<size_t>(copy.to)]) continue;
    throw Error("ERR_ARGUMENT", "copySlots: slot " + std::to_string(copy.to) + " is in both from and to");
  }
  return copies;
}

}  // namespace

void run(const CopySlots& op, Cpu& cpu) {
  const std::vector<Copy> copies = read_copies(op);
  const int64_t element = static_cast<int64_t>(dtype_bytes(op.pool.dtype));
  const int64_t bytes = op.pool.inner() * element, stride = op.pool.stride0 * element;
  const int64_t pieces = (bytes + kPieceBytes - 1) / kPieceBytes;
  cpu.pool->run(static_cast<int64_t>(copies.size()) * pieces, [&](int64_t task, int) {
    const Copy& copy = copies[static_cast<size_t>(task / pieces)];
    const int64_t begin = task % pieces * kPieceBytes;
    const int64_t count = bytes - begin < kPieceBytes ? bytes - begin : kPieceBytes;
    std::memcpy(op.pool.as<char>() + copy.to * stride + begin, op.pool.as<char>() + copy.from * stride + begin,
                static_cast<size_t>(count));
  });
}

}  // namespace linattn::cpu
