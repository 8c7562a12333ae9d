// cuBLASLt, where the machine has it: found at run time, so that nothing needs it to build or to start.
#pragma once
#include "cuda/cuda.h"
#include "cuda/ops/matmul.h"

namespace linattn::cuda {

class CublasLt;

// Of this device, or null: LINATTN_CUBLASLT names the library's file, or is `none`; otherwise it is looked for.
CublasLt* cublaslt(Cuda& cuda);
// False when it has no algorithm for the product. `workspace`: kCublasLtWorkspaceBytes of scratch.
constexpr size_t kCublasLtWorkspaceBytes = size_t{32} << 20;
bool multiply(CublasLt& cublaslt, const MatrixProduct& product, void* workspace, Cuda& cuda);

}  // namespace linattn::cuda
