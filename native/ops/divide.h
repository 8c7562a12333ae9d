// Meaning and contract: lib/ops/divide.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Divide {
  static constexpr const char* kName = "divide";
  Tensor x;               // [T, H, D] any float
  Tensor divisor, floor;  // float32 [T, H]
  Tensor out;             // as x
  float eps = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("divisor", divisor);
    v.in("floor", floor);
    v.out("out", out);
    v.number("eps", eps);
  }
};

}  // namespace linattn
