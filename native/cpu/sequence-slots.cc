#include "cpu/sequence-slots.h"

#include <string>
#include <vector>

#include "core/error.h"

namespace linattn::cpu {
namespace {

std::string element(const char* op, const char* name, int64_t i) {
  return std::string(op) + ": " + name + "[" + std::to_string(i) + "]";
}

}  // namespace

void check_offsets(const char* op, const Sequences& sequences) {
  const auto* offsets = sequences.offsets.as<int32_t>();
  const int64_t N = sequences.rows, T = sequences.tokens;
  for (int64_t n = 0; n <= N; n++) {
    const int64_t low = n == N ? T : n == 0 ? 0 : offsets[n - 1];
    const int64_t high = n == 0 && N > 0 ? 0 : T;
    if (offsets[n] >= low && offsets[n] <= high && (n == 0 || offsets[n] >= offsets[n - 1])) continue;
    throw Error("ERR_ARGUMENT", element(op, "sequences.offsets", n) + " must rise from 0 to the " + std::to_string(T) +
                                    " tokens, got " + std::to_string(offsets[n]));
  }
}

void check_slots(const char* op, const Sequences& sequences, int64_t slots, const char* name, const int32_t* more,
                 int64_t count) {
  const auto* read_slots = sequences.read_slots.as<int32_t>();
  const auto* write_slots = sequences.write_slots.as<int32_t>();
  const int64_t N = sequences.rows;
  const auto check_range = [&](const char* argument, int64_t i, int64_t slot) {
    if (slot >= -1 && slot < slots) return;
    throw Error("ERR_ARGUMENT", element(op, argument, i) + " must be in [-1, " + std::to_string(slots) + "), got " +
                                    std::to_string(slot));
  };
  std::vector<int64_t> writer(static_cast<size_t>(slots), -1);  // the row, or N for one of `more`
  const auto claim = [&](const char* argument, int64_t i, int64_t slot, int64_t owner) {
    check_range(argument, i, slot);
    if (slot < 0) return;
    int64_t& kept = writer[static_cast<size_t>(slot)];
    if (kept >= 0) {
      throw Error("ERR_ARGUMENT", element(op, argument, i) + ": slot " + std::to_string(slot) + " is written twice");
    }
    kept = owner;
  };
  for (int64_t n = 0; n < N; n++) claim("sequences.writeSlots", n, write_slots[n], n);
  for (int64_t i = 0; i < count; i++) claim(name, i, more[i], N);
  for (int64_t n = 0; n < N; n++) {
    check_range("sequences.readSlots", n, read_slots[n]);
    const int64_t owner = read_slots[n] < 0 ? -1 : writer[static_cast<size_t>(read_slots[n])];
    if (owner < 0 || owner == n) continue;
    throw Error("ERR_ARGUMENT", element(op, "sequences.readSlots", n) + ": slot " + std::to_string(read_slots[n]) +
                                    " is written by " +
                                    (owner == N ? std::string(name) : "row " + std::to_string(owner)));
  }
}

}  // namespace linattn::cpu
