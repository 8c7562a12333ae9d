// causalConv: the contract is in lib/ops/causal-conv.ts.
#pragma once
#include "core/op-fields.h"
#include "core/tensor.h"

namespace linattn {

struct CausalConv {
  static constexpr const char* kName = "causalConv";
  Tensor x;       // [T, C] float
  Tensor weight;  // float32 [F C, W]: F filters of all channels, one after the other
  Tensor bias;    // float32 [F C]
  Tensor state;   // float32 [slots, C, W - 1], the last inputs, oldest first
  Tensor out;     // [T, F C] as x
  Sequences sequences;
  bool silu = false;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weight", weight);
    v.optional("bias", bias);
    v.inout("state", state);
    v.out("out", out);
    sequences.visit(v);
    v.number("silu", silu);
  }
};

}  // namespace linattn
