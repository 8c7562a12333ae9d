// Meaning and contract: lib/ops/gather-rows.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct GatherRows {
  static constexpr const char* kName = "gatherRows";
  Tensor x;     // [T, C] any dtype
  Tensor rows;  // int32 [M]
  Tensor out;   // [M, C] as x

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("rows", rows);
    v.out("out", out);
  }
};

}  // namespace linattn
