// featureMap: the contract is in lib/ops/feature-map.ts.
#pragma once
#include "core/op-fields.h"
#include "core/tensor.h"

namespace linattn {

// The order is that of `featureMaps` in lib/ops/feature-map.ts.
enum class FeatureKind : uint8_t {
  kIdentity,
  kElu1,
  kRelu,
  kSquaredRelu,
  kExp,
  kSoftmax,
  kHedgehogSplit,
  kHedgehogJoint,
  kTaylor,
  kDpfp
};

struct FeatureMap {
  static constexpr const char* kName = "featureMap";
  Tensor x;    // [T, H, D] float
  Tensor out;  // [T, H, F] as x: the features, then zeros
  FeatureKind map = FeatureKind::kIdentity;
  int32_t order = 1;  // kDpfp
  float scale = 1, floor = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.out("out", out);
    v.number("map", map);
    v.number("order", order);
    v.number("scale", scale);
    v.number("floor", floor);
  }
};

}  // namespace linattn
