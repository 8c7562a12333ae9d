// Meaning and contract: lib/ops/convert.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Convert {
  static constexpr const char* kName = "convert";
  Tensor x;     // any float, any shape
  Tensor into;  // any float, shape of x, or absent
  Tensor out;   // the same, contiguous, when `into` is absent

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.inout("into", into);
    v.out("out", out);
  }
};

}  // namespace linattn
