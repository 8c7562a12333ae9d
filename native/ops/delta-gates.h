// Meaning and contract: lib/ops/delta-gates.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct DeltaGates {
  static constexpr const char* kName = "deltaGates";
  Tensor a;               // [T, H] any float
  Tensor b;               // as a; absent: beta is the step size, softplus(a + dt_bias) within [step_min, step_max]
  Tensor a_log, dt_bias;  // float32 [H]
  Tensor g, beta;         // float32 [T, H]
  float beta_scale = 1;
  float step_min = 0, step_max = 0;

  template <class V>
  void visit(V& v) {
    v.in("a", a);
    v.optional("b", b);
    v.in("aLog", a_log);
    v.in("dtBias", dt_bias);
    v.out("g", g);
    v.out("beta", beta);
    v.number("betaScale", beta_scale);
    v.number("stepMin", step_min);
    v.number("stepMax", step_max);
  }
};

}  // namespace linattn
