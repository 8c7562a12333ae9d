// Meaning and contract: lib/ops/add.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Add {
  static constexpr const char* kName = "add";
  Tensor a;       // as b, or absent: 0
  Tensor b;       // any shape, any float
  Tensor scales;  // float32 [H] or [T, H] of b [T, H, D], or absent
  Tensor out;     // as b
  float scale = 1;

  template <class V>
  void visit(V& v) {
    v.optional("a", a);
    v.in("b", b);
    v.optional("scales", scales);
    v.out("out", out);
    v.number("scale", scale);
  }
};

}  // namespace linattn
