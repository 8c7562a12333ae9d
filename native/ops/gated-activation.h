// Meaning and contract: lib/ops/gated-activation.ts.
#pragma once
#include "ops/activation.h"

namespace linattn {

struct GatedActivation {
  static constexpr const char* kName = "gatedActivation";
  Tensor x;     // [T, I] any float; without a gate [T, 2I]: gate, then x
  Tensor gate;  // [T, I] as x, or absent
  Tensor base;  // [T, I] as x, or absent
  Tensor out;   // [T, I] as x
  ActivationKind activation = ActivationKind::kSilu;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.optional("gate", gate);
    v.optional("base", base);
    v.out("out", out);
    v.number("activation", activation);
  }
};

}  // namespace linattn
