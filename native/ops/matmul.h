// Meaning and contract: lib/ops/matmul.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

// Whose sums the rows get on a GPU: those of whichever kernels are fastest for so many rows, or always those of the
// kernels for few rows or for many, and then a row has the same bits in any company.
enum class ProductPath : uint8_t { kFastest, kFewRows, kManyRows };

struct Matmul {
  static constexpr const char* kName = "matmul";
  Tensor x;        // [T, K] any float
  Tensor weights;  // uint8, packed (cpu/weight-layout.h)
  Tensor scales;   // float32 [panels, groups, 32], int8 only
  Tensor bias;     // float32 [N] or absent
  Tensor out;      // [T, N] as x
  DType dtype = DType::kFloat32;
  int64_t group = 0;  // inputs of a scale; 0 = all
  ProductPath path = ProductPath::kFastest;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("weights", weights);
    v.optional("scales", scales);
    v.optional("bias", bias);
    v.out("out", out);
    v.number("dtype", dtype);
    v.number("group", group);
    v.number("path", path);
  }
};

}  // namespace linattn
