// Meaning and contract: lib/ops/embedding.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Embedding {
  static constexpr const char* kName = "embedding";
  Tensor ids;      // int32 [T]
  Tensor weights;  // uint8, packed (cpu/weight-layout.h)
  Tensor scales;   // float32 [panels, groups, 32], int8 only
  Tensor out;      // float32 [T, K]
  DType dtype = DType::kFloat32;
  int64_t group = 0;  // inputs of a scale; 0 = all
  int64_t rows = 0;   // of the weight

  template <class V>
  void visit(V& v) {
    v.in("ids", ids);
    v.in("weights", weights);
    v.optional("scales", scales);
    v.out("out", out);
    v.number("dtype", dtype);
    v.number("group", group);
    v.number("rows", rows);
  }
};

}  // namespace linattn
