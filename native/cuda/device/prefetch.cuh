// Has the second cache fetch what lies at an address. That cache sees every write, so a kernel may do this before
// wait_for_inputs(), for anything.
#pragma once
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

__device__ __forceinline__ void prefetch([[maybe_unused]] const void* address) {
#ifndef LINATTN_CUDA_EMULATOR
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

}  // namespace linattn::cuda
