// Meaning and contract: lib/ops/activation.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

// The order is that of `activations` in lib/ops/activation.ts.
#define LINATTN_ACTIVATIONS(X) \
  X(kSilu) X(kSigmoid) X(kTanh) X(kRelu) X(kRelu2) X(kSoftplus) X(kGelu) X(kGeluTanh) X(kLogSigmoid) X(kIdentity)
enum class ActivationKind : uint8_t {
#define LINATTN_NAME(name) name,
  LINATTN_ACTIVATIONS(LINATTN_NAME)
#undef LINATTN_NAME
};

struct Activation {
  static constexpr const char* kName = "activation";
  Tensor x;    // any shape, any float
  Tensor out;  // as x
  ActivationKind activation = ActivationKind::kSilu;
  float scale = 1;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.out("out", out);
    v.number("activation", activation);
    v.number("scale", scale);
  }
};

}  // namespace linattn
