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

// Whether this block is one of those that begin first. They alone prefetch what all blocks read: where thousands ask
// for the same lines, these requests wait for one another, and no later block gains by its own.
__device__ __forceinline__ bool begins_first() { return blockIdx.x < 256; }

// Has the constant cache fetch a kernel's arguments: the first read of each line waits for memory, and behind weights
// that pass. By one warp; `to`: a word of shared memory that nobody reads.
template <class... Arguments>
__device__ __forceinline__ void fetch_arguments([[maybe_unused]] int* to, [[maybe_unused]] const Arguments&... all) {
#ifndef LINATTN_CUDA_EMULATOR
  constexpr int kStep = 32 / sizeof(int);
  int sum = 0;
  const auto fetch = [&](const auto& one) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(one) / sizeof(int)); i += kStep) {
      sum ^= reinterpret_cast<const int*>(&one)[i];
    }
  };
  (fetch(all), ...);
  *const_cast<volatile int*>(to) = sum;
#endif
}

// What lies at an address now, past the first cache: before wait_for_inputs() a guess at what will lie there.
__device__ __forceinline__ int32_t glance(const int32_t* address) {
#ifdef LINATTN_CUDA_EMULATOR
  return *address;
#else
  return __ldcg(address);
#endif
}

}  // namespace linattn::cuda
