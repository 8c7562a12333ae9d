// Meaning and contract: lib/ops/route.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

enum class RouteScore : uint8_t { kSoftmax, kSigmoid };

struct Route {
  static constexpr const char* kName = "route";
  Tensor logits;   // [T, E] any float
  Tensor bias;     // float32 [E], or absent
  Tensor ids;      // int32 [T, k]
  Tensor weights;  // float32 [T, k]
  RouteScore score = RouteScore::kSoftmax;
  bool renormalise = false;
  float scale = 1;

  template <class V>
  void visit(V& v) {
    v.in("logits", logits);
    v.optional("bias", bias);
    v.out("ids", ids);
    v.out("weights", weights);
    v.number("score", score);
    v.number("renormalise", renormalise);
    v.number("scale", scale);
  }
};

}  // namespace linattn
