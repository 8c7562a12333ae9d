// Meaning and contract: lib/ops/mark-seen.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct MarkSeen {
  static constexpr const char* kName = "markSeen";
  Tensor seen;     // int32 [slots, words], in place
  Tensor rows;     // int32 [N], slot or -1
  Tensor offsets;  // int32 [N + 1]
  Tensor tokens;   // int32 [T]
  int64_t vocab = 0;
  bool clear = false;

  template <class V>
  void visit(V& v) {
    v.inout("seen", seen);
    v.in("rows", rows);
    v.in("offsets", offsets);
    v.in("tokens", tokens);
    v.number("vocab", vocab);
    v.number("clear", clear);
  }
};

}  // namespace linattn
