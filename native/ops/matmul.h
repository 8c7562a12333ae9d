// Meaning and contract: lib/ops/matmul.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Matmul {
  static constexpr const char* kName = "matmul";
  Tensor x;        // [T, K] any float
  Tensor weights;  // uint8, packed (cpu/weight-layout.h)
  Tensor scales;   // float32 [panels, groups, 32], int8 only
  Tensor bias;     // float32 [N] or absent
  Tensor out;      // [T, N] as x
  DType dtype = DType::kFloat32;
  int64_t group = 0;  // inputs of a scale; 0 = all

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weights", weights);
    v.optional("scales", scales);
    v.optional("bias", bias);
    v.out("out", out);
    v.number("dtype", dtype);
    v.number("group", group);
  }
};

}  // namespace linattn
