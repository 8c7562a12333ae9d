// Meaning and contract: lib/ops/pack-weight.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct PackWeight {
  static constexpr const char* kName = "packWeight";
  Tensor source;   // [n, K] any float
  Tensor weights;  // uint8, packed (cpu/weight-layout.h)
  Tensor scales;   // float32 [panels, groups, 32], int8 only
  DType dtype = DType::kFloat32;
  int64_t group = 0;  // inputs of a scale; 0 = all
  int64_t row = 0;    // of the weight that takes the first row of the source

  template <class V>
  void visit(V& v) {
    v.in("source", source);
    v.inout("weights", weights);
    v.inout("scales", scales);
    v.number("dtype", dtype);
    v.number("group", group);
    v.number("row", row);
  }
};

}  // namespace linattn
