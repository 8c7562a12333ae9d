// Meaning and contract: lib/ops/mlstm-gates.ts.
#pragma once
#include <limits>

#include "core/op-fields.h"
#include "core/tensor.h"

namespace linattn {

struct MlstmGates {
  static constexpr const char* kName = "mlstmGates";
  Tensor x;                    // [T, 2 H] any float
  Tensor bias;                 // float32 [2 H]
  Tensor maximum;              // float32 [slots, H]
  Tensor g, key_scale, floor;  // float32 [T, H]
  Sequences sequences;
  float cap = 0;  // 0 = none
  float scale = 1;
  bool exponential = false;

  // m before the first token of a sequence.
  float start() const { return exponential ? -std::numeric_limits<float>::infinity() : 0; }

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("bias", bias);
    v.inout("maximum", maximum);
    v.out("g", g);
    v.out("keyScale", key_scale);
    v.out("floor", floor);
    sequences.visit(v);
    v.number("cap", cap);
    v.number("scale", scale);
    v.number("exponential", exponential);
  }
};

}  // namespace linattn
