// Meaning and contract: lib/ops/weighted-sum.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct WeightedSum {
  static constexpr const char* kName = "weightedSum";
  Tensor x;        // [T k, C] any float
  Tensor weights;  // float32 [T, k]
  Tensor base;     // [T, C] as x, or absent
  Tensor out;      // [T, C] as x

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weights", weights);
    v.optional("base", base);
    v.out("out", out);
  }
};

}  // namespace linattn
