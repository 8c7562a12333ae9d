// causalConv: the contract is in lib/ops/causal-conv.ts.
#pragma once
#include "core/op-fields.h"
#include "core/tensor.h"
#include "ops/l2-norm.h"

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
  // The first norm_channels, in vectors of norm_width, are L2-normalised.
  int64_t norm_channels = 0, norm_width = 0;
  float norm_eps = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weight", weight);
    v.optional("bias", bias);
    v.inout("state", state);
    v.out("out", out);
    sequences.visit(v);
    v.number("silu", silu);
    v.number("normChannels", norm_channels);
    v.number("normWidth", norm_width);
    v.number("normEps", norm_eps);
  }

  // The normalisation as an op of its own, on the outputs.
  L2Norm norm() const {
    L2Norm norm;
    norm.x = out;
    norm.x.rank = 3;
    norm.x.shape[1] = norm_width == 0 ? 0 : norm_channels / norm_width;
    norm.x.shape[2] = norm_width;
    norm.out = norm.x;
    norm.eps = norm_eps;
    return norm;
  }
};

}  // namespace linattn
