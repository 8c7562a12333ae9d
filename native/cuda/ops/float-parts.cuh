// A float32 as the sum of three bfloat16, which is exact: 3 x 8 bits of fraction. What is not finite is its own first
// part.
#pragma once
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

__device__ __forceinline__ bool is_finite(float x) { return fabsf(x) <= 3.402823466e38f; }

// The leading 8 bits of the fraction. Cut off, not rounded: the largest floats stay finite.
__device__ __forceinline__ float leading_part(float x) {
  return is_finite(x) ? __uint_as_float(__float_as_uint(x) & 0xffff0000u) : x;
}
__device__ __forceinline__ float rest_of(float x, float leading) { return is_finite(x) ? x - leading : 0.0f; }

}  // namespace linattn::cuda
