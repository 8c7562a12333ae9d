#include "cuda/code-capability.h"
#include "cuda/error.h"

namespace linattn::cuda {
namespace {

__global__ void any_kernel() {}

}  // namespace

int code_capability() {
  cudaFuncAttributes attributes{};
  check(cudaFuncGetAttributes(&attributes, any_kernel));
  return attributes.ptxVersion;
}

}  // namespace linattn::cuda
