// Powers by the instruction of the GPU.
#pragma once
#include <cmath>

#include "cuda/device/platform.cuh"

namespace linattn::cuda {

// e^x = exp2_fast(x * kLog2E), to 2 ulp.
constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float exp2_fast(float x) {
#ifdef LINATTN_CUDA_EMULATOR
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

}  // namespace linattn::cuda
