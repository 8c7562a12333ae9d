// Meaning and contract: lib/ops/rms-norm.ts.
#pragma once
#include "ops/activation.h"

namespace linattn {

enum class GateOrder : uint8_t { kAfter, kBefore };

struct RmsNorm {
  static constexpr const char* kName = "rmsNorm";
  Tensor x;         // [T, ..., D] any float
  Tensor weight;    // float32; its length divides the row of x and is a multiple of group_size
  Tensor gate;      // as x, or absent
  Tensor residual;  // as x, or absent
  Tensor out;       // as x
  Tensor sum;       // as x: branch_scale x + residual, which is what is normalised; absent without residual
  int64_t group_size = 0;
  double eps = 0;
  float branch_scale = 1;
  bool zero_centred = false;
  GateOrder gate_order = GateOrder::kAfter;
  ActivationKind gate_activation = ActivationKind::kSilu;  // kSilu or kSigmoid

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weight", weight);
    v.optional("gate", gate);
    v.optional("residual", residual);
    v.out("out", out);
    v.out("sum", sum);
    v.number("groupSize", group_size);
    v.number("eps", eps);
    v.number("branchScale", branch_scale);
    v.number("zeroCentred", zero_centred);
    v.number("gateOrder", gate_order);
    v.number("gateActivation", gate_activation);
  }
};

}  // namespace linattn
