// Reductions and running sums over a one-dimensional block of whole warps. `shared`: kWarp values.
#pragma once
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

// Every thread gets the result; `combine` is associative, and 0 changes nothing.
template <class T, class Combine>
__device__ __forceinline__ T block_reduce(T x, T* shared, Combine combine) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const auto over_warp = [&](T value) {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      value = combine(value, __shfl_xor_sync(kFullMask, value, offset));
    }
    return value;
  };
  x = over_warp(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  return over_warp(lane < warps ? shared[lane] : T{0});
}

template <class T>
__device__ __forceinline__ T block_total(T x, T* shared) {
  return block_reduce(x, shared, [](T a, T b) { return a + b; });
}

// The sum over the threads before this one, and of all.
template <class T>
struct Running {
  T before, total;
};

template <class T>
__device__ __forceinline__ Running<T> block_running(T x, T* shared) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const auto over_warp = [&](T value) {
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const T lower = __shfl_up_sync(kFullMask, value, offset);
      if (lane >= offset) value += lower;
    }
    return value;
  };
  const T through = over_warp(x);
  __syncthreads();
  if (lane == kWarp - 1) shared[warp] = through;
  __syncthreads();
  const T warp_through = over_warp(lane < warps ? shared[lane] : T{0});
  const T total = __shfl_sync(kFullMask, warp_through, kWarp - 1);
  const T before_warp = __shfl_sync(kFullMask, warp_through, warp > 0 ? warp - 1 : 0);
  return {through - x + (warp > 0 ? before_warp : T{0}), total};
}

}  // namespace linattn::cuda
