// Meaning and contract: lib/ops/grouped-matmul.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct GroupedMatmul {
  static constexpr const char* kName = "groupedMatmul";
  Tensor x;        // [T, K] or [T k, K] any float
  Tensor ids;      // int32 [T, k]
  Tensor weights;  // uint8, packed (cpu/weight-layout.h), the experts one after the other
  Tensor scales;   // float32 [panels, groups, 32], int8 only
  Tensor out;      // [T k, N] as x; N a multiple of 32
  DType dtype = DType::kFloat32;
  int64_t group = 0;  // inputs of a scale; 0 = all
  int64_t experts = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("ids", ids);
    v.in("weights", weights);
    v.optional("scales", scales);
    v.out("out", out);
    v.number("dtype", dtype);
    v.number("group", group);
    v.number("experts", experts);
  }
};

}  // namespace linattn
