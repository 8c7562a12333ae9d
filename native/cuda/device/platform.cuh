// What a kernel file includes first: the CUDA runtime, or its stand-in that runs kernels on the CPU
// (emulator/emulator.h), with which the tests of the ops run where there is no GPU. A kernel keeps to what both have:
//   __global__, __device__, __shared__ arrays of fixed size, dynamic_shared<T>(), threadIdx and its kind,
//   __syncthreads, __syncwarp, __shfl*_sync with the full mask, __ballot_sync, atomics, the float functions of CUDA,
//   and device/mma.cuh for matrix instructions.
#pragma once

#ifdef LINATTN_CUDA_EMULATOR
#include "cuda/emulator/emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace linattn::cuda {

// The block's dynamic shared memory.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char linattn_dynamic_shared[];
  return reinterpret_cast<T*>(linattn_dynamic_shared);
}

}  // namespace linattn::cuda
#endif

namespace linattn::cuda {

// Lets the next kernel of launch_early() begin, as far as its wait_for_inputs(), once every block has come here.
__device__ __forceinline__ void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// In a kernel that launch_early() starts, before it reads what another wrote and before it writes: waits until the
// kernels before it have ended, and what they wrote is seen. Every kernel that is launched early comes here, so that
// the end of one means the end of all before it.
__device__ __forceinline__ void wait_for_inputs() {
  let_next_begin();
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Of a function that is code once, not once a call: what runs once takes as long as its code takes to come.
#ifdef LINATTN_CUDA_EMULATOR
#define LINATTN_NO_INLINE
#else
#define LINATTN_NO_INLINE __noinline__
#endif

constexpr unsigned kFullMask = 0xffffffffu;
constexpr int kWarp = 32;

constexpr __host__ __device__ int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace linattn::cuda
