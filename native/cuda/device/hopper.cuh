// Kernels for sm_90a alone: compiled for any other architecture they are empty.
#pragma once
#include "cuda/error.h"

namespace linattn::cuda {

#ifndef LINATTN_CUDA_EMULATOR
// Whether what was loaded of a kernel is its code for Hopper: there alone it declares shared memory of fixed size.
template <class Kernel>
bool is_for_hopper(Kernel kernel) {
  cudaFuncAttributes attributes;
  check(cudaFuncGetAttributes(&attributes, kernel));
  return attributes.sharedSizeBytes > 0;
}
#endif

}  // namespace linattn::cuda
