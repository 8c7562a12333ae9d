// The three float types of tensors in kernels: as float32 and back (to nearest even), alone or several at once.
#pragma once
#include "core/dtype.h"
#include "core/error.h"
#include "cuda/device/platform.cuh"
#ifdef LINATTN_CUDA_EMULATOR
#include "core/half.h"
#endif

namespace linattn::cuda {

__device__ __forceinline__ float as_float(float x) { return x; }
#ifdef LINATTN_CUDA_EMULATOR
inline float as_float(bfloat16 x) { return to_float(x); }
inline float as_float(float16 x) { return to_float(x); }
#else
__device__ __forceinline__ float as_float(bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ __forceinline__ float as_float(float16 x) { return __half2float(__ushort_as_half(x.bits)); }
#endif

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) {
#ifdef LINATTN_CUDA_EMULATOR
  return to_bfloat16(x);
#else
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#endif
}
template <>
__device__ __forceinline__ float16 from_float<float16>(float x) {
#ifdef LINATTN_CUDA_EMULATOR
  return to_float16(x);
#else
  return {__half_as_ushort(__float2half_rn(x))};
#endif
}

// N values that lie together; the address must be aligned to their size, at most 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N <= 16 ? sizeof(T) * N : 16) Pack {
  T value[N];
};

template <int N, class T>
__device__ __forceinline__ void load(const T* from, float (&to)[N]) {
  const auto pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; i++) to[i] = as_float(pack.value[i]);
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, const float (&from)[N]) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; i++) pack.value[i] = from_float<T>(from[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// body(T{}) with the C++ type of a float dtype.
template <class Body>
void for_float(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kBFloat16:
      return body(bfloat16{});
    case DType::kFloat16:
      return body(float16{});
    default:
      throw Error("ERR_DTYPE", std::string("cuda: ") + dtype_name(dtype) + " is no float dtype");
  }
}

}  // namespace linattn::cuda
