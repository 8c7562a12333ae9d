// Whole numbers meet activations of a 16-bit type as they are; a float32 is the sum of three bfloat16.
#include "cuda/ops/matmul-few-rows-mma.cuh"

namespace linattn::cuda {

void multiply_few_rows_int8(const Product& p, Cuda& cuda) {
  using namespace few_rows;
  switch (p.x_type) {
    case DType::kBFloat16:
      return launch_multiply<Operands<bfloat16, int8_t, bfloat16>>(p, cuda);
    case DType::kFloat16:
      return launch_multiply<Operands<float16, int8_t, float16>>(p, cuda);
    default:
      return launch_multiply<Operands<float, int8_t, bfloat16, 3>>(p, cuda);
  }
}

}  // namespace linattn::cuda
