// Meaning and contract: lib/ops/count-nan.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct CountNan {
  static constexpr const char* kName = "countNan";
  Tensor x;    // any float, contiguous
  Tensor out;  // int32 [1]

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.out("out", out);
  }
};

}  // namespace linattn
