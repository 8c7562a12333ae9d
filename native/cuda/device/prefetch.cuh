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

constexpr int kCacheLine = 128;  // bytes

// What lies at an address, before wait_for_inputs() as well: another kernel may still write it, so it is good for a
// guess of what to prefetch. The first cache, which sees no writes of others, keeps nothing of it.
__device__ __forceinline__ int load_past_first_cache(const int* address) {
#ifdef LINATTN_CUDA_EMULATOR
  return *address;
#else
  int value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(address));
  return value;
#endif
}

}  // namespace linattn::cuda
