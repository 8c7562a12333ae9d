// Meaning and contract: lib/ops/layer-norm.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct LayerNorm {
  static constexpr const char* kName = "layerNorm";
  Tensor x;       // [T, ..., D] any float
  Tensor weight;  // float32; its length divides the row of x and is a multiple of group_size
  Tensor bias;    // as weight, or absent
  Tensor out;     // as x
  int64_t group_size = 0;
  double eps = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weight", weight);
    v.optional("bias", bias);
    v.out("out", out);
    v.number("groupSize", group_size);
    v.number("eps", eps);
  }
};

}  // namespace linattn
