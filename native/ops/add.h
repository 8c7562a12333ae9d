// Meaning and contract: lib/ops/add.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Add {
  static constexpr const char* kName = "add";
  Tensor a, b;  // any shape, any float, alike
  Tensor out;   // as a
  float scale = 1;

  template <class V>
  void visit(V& v) {
    v.in("a", a);
    v.in("b", b);
    v.out("out", out);
    v.number("scale", scale);
  }
};

}  // namespace linattn
