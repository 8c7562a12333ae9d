// l2Norm: the contract is in lib/ops/l2-norm.ts.
#pragma once
#include "core/op-fields.h"
#include "core/tensor.h"

namespace linattn {

struct L2Norm {
  static constexpr const char* kName = "l2Norm";
  Tensor x;    // [T, H, D] float
  Tensor out;  // as x
  float scale = 1, eps = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.out("out", out);
    v.number("scale", scale);
    v.number("eps", eps);
  }
};

}  // namespace linattn
