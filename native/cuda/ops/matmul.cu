// The product of a linear layer; matmul.h lists its paths.
#include <algorithm>

#include "cuda/ops/cublaslt.h"
#include "cuda/ops/matmul.h"
#include "ops/matmul.h"

namespace linattn::cuda {
namespace {

// Without cuBLASLt, the weights are rather read several times than multiplied by tiles that are mostly empty.
constexpr int64_t kFewRowsAlone = 64;

}  // namespace

void multiply_few_rows(const Product& p, Cuda& cuda) {
  if (multiply_few_rows_bulk(p, cuda)) return;
  switch (p.layout.dtype) {
    case DType::kInt8:
      return multiply_few_rows_int8(p, cuda);
    case DType::kBFloat16:
      return multiply_few_rows_half(p, cuda);
    case DType::kFloat16:
      return p.x_type == DType::kFloat16 ? multiply_few_rows_half(p, cuda) : multiply_few_rows_float(p, cuda);
    default:
      return multiply_few_rows_float(p, cuda);
  }
}

Product product_of(const Matmul& op) {
  const WeightLayout layout(op.dtype, op.x.shape[1], op.group);
  layout.check(op.weights, op.out.shape[1]);
  return {op.x.shape[0],
          op.out.shape[1],
          op.x.shape[1],
          layout,
          op.x.dtype,
          op.x.data,
          op.x.stride0,
          op.weights.data,
          op.scales.as<const float>(),
          op.bias.as<const float>(),
          op.out.data,
          op.out.stride0};
}

void run(const Matmul& op, Cuda& cuda) {
  if (op.x.shape[0] == 0) return;
  const Product product = product_of(op);
  const bool fastest = op.path == ProductPath::kFastest;
  const bool many = fastest ? product.rows > kFewRowsAlone || (product.rows > kFewRows && cublaslt(cuda))
                            : op.path == ProductPath::kManyRows;
  if (many) return multiply_many_rows(product, fastest ? cublaslt(cuda) : nullptr, cuda);
  const auto bytes = static_cast<int64_t>(dtype_bytes(op.x.dtype));
  for (int64_t row = 0; row < product.rows; row += kFewRows) {
    Product part = product;
    part.rows = std::min(kFewRows, product.rows - row);
    part.x = static_cast<const char*>(product.x) + row * product.x_stride * bytes;
    part.out = static_cast<char*>(product.out) + row * product.out_stride * bytes;
    multiply_few_rows(part, cuda);
  }
}

}  // namespace linattn::cuda
