// Meaning and contract: lib/ops/delta-gates.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct DeltaGates {
  static constexpr const char* kName = "deltaGates";
  Tensor a, b;            // [T, H] any float, alike
  Tensor a_log, dt_bias;  // float32 [H]
  Tensor g, beta;         // float32 [T, H]
  float beta_scale = 1;

  template <class V>
  void visit(V& v) {
    v.in("a", a);
    v.in("b", b);
    v.in("aLog", a_log);
    v.in("dtBias", dt_bias);
    v.out("g", g);
    v.out("beta", beta);
    v.number("betaScale", beta_scale);
  }
};

}  // namespace linattn
