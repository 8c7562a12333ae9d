// Products of few rows with 16-bit weights, and activations of the weights' type or, where these are bfloat16, rounded
// to it.
#include "cuda/ops/matmul-few-rows-mma.cuh"

namespace linattn::cuda {

void multiply_few_rows_half(const Product& p, Cuda& cuda) {
  using namespace few_rows;
  if (p.layout.dtype == DType::kFloat16) return launch_multiply<Operands<float16, float16, float16>>(p, cuda);
  for_float(p.x_type, [&](auto x) { launch_multiply<Operands<decltype(x), bfloat16, bfloat16>>(p, cuda); });
}

}  // namespace linattn::cuda
