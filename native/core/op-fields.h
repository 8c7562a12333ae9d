// How an op struct tells its fields: `template <class V> void visit(V& v)` calls, in the order of the record,
//   v.in(name, tensor)        a tensor that is read
//   v.optional(name, tensor)  a tensor that is read, or absent (id 0)
//   v.inout(name, tensor)     updated in place, or absent: tainted when the command fails
//   v.out(name, tensor)       made by this call, or absent
//   v.number(name, value)     a number, flag or enum
// One double of the record each. Nothing else in the binding knows an op.
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/tensor.h"

namespace linattn {

enum class FieldKind : uint8_t { kIn, kOptional, kInOut, kOut, kNumber };

// How packed tokens divide into rows (sequences); see docs of `Sequences` in lib/ops/sequences.ts.
struct Sequences {
  int32_t rows = 0, tokens = 0, max_tokens = 0, single_rows = 0;  // host values, frozen by capture
  Tensor offsets;                                                 // int32 [N + 1]
  Tensor read_slots, write_slots, positions;                      // int32 [N]

  template <class V>
  void visit(V& v) {
    v.number("rows", rows);
    v.number("tokens", tokens);
    v.number("maxTokens", max_tokens);
    v.number("singleRows", single_rows);
    v.in("offsets", offsets);
    v.in("readSlots", read_slots);
    v.in("writeSlots", write_slots);
    v.in("positions", positions);
  }
};

template <class T>
T from_double(double value) {
  if constexpr (std::is_enum_v<T>) {
    return static_cast<T>(static_cast<std::underlying_type_t<T>>(value));
  } else if constexpr (std::is_same_v<T, bool>) {
    return value != 0;
  } else {
    return static_cast<T>(value);
  }
}

}  // namespace linattn
