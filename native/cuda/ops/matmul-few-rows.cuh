// Products of few rows: how a warp streams rows of weights, and how the warps of a block share the inputs.
#pragma once
#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/ops/matmul.h"

namespace linattn::cuda::few_rows {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;

// 16 or 8 bytes that are read once: they are not to displace x from the first cache. Zeros, and no access, unless
// `present`; that is no branch, so that the loads of several rows are under way together.
__device__ __forceinline__ void stream(uint32_t (&to)[4], const void* from, bool present) {
#ifdef LINATTN_CUDA_EMULATOR
  if (present) std::memcpy(to, from, sizeof(to));
#else
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %5, 0;\n"
      "@p ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];}\n"
      : "+r"(to[0]), "+r"(to[1]), "+r"(to[2]), "+r"(to[3])
      : "l"(from), "r"(static_cast<uint32_t>(present)));
#endif
}
__device__ __forceinline__ void stream(uint32_t (&to)[2], const void* from, bool present) {
#ifdef LINATTN_CUDA_EMULATOR
  if (present) std::memcpy(to, from, sizeof(to));
#else
  asm volatile(
      "{.reg .pred p; setp.ne.u32 p, %3, 0;\n"
      "@p ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0,%1}, [%2];}\n"
      : "+r"(to[0]), "+r"(to[1])
      : "l"(from), "r"(static_cast<uint32_t>(present)));
#endif
}

// kWidth weights of a row from input k on, zeros beyond the row. Not `aligned`: rows of any even length.
template <bool aligned, class W, int kWords>
__device__ __forceinline__ void load_weights(uint32_t (&to)[kWords], const W* row, int64_t k, int64_t padded_depth) {
  constexpr int kWidth = kWords * 4 / sizeof(W);
#pragma unroll
  for (int i = 0; i < kWords; i++) to[i] = 0;
  if constexpr (aligned) {
    stream(to, row + k, k < padded_depth);
  } else {
    W values[kWidth] = {};
    for (int i = 0; i < kWidth && k + i < padded_depth; i++) values[i] = row[k + i];
    memcpy(to, values, sizeof(to));
  }
}

// kWidth activations of a row from input k on, zeros beyond the row, without a branch as well.
template <bool aligned, class X, int kWidth>
__device__ __forceinline__ void load_inputs(Pack<X, kWidth>& to, const X* row, int64_t k, int64_t depth) {
  if constexpr (aligned) {
    to = *reinterpret_cast<const Pack<X, kWidth>*>(row + min(k, depth - kWidth));
#pragma unroll
    for (int i = 0; i < kWidth; i++) to.value[i] = k < depth ? to.value[i] : X{};
  } else {
    for (int i = 0; i < kWidth; i++) to.value[i] = k + i < depth ? row[k + i] : X{};
  }
}

// Row `row` of x, or the last one: what is computed of rows that are not there goes nowhere.
template <class X>
__device__ __forceinline__ const X* input_row(const Product& p, int row) {
  return static_cast<const X*>(p.x) + min(static_cast<int64_t>(row), p.rows - 1) * p.x_stride;
}

// Warps that share an output: enough that the loads of all of them fill the memory's pipe. It depends on the weight
// alone, so that a row has the same bits in any company.
inline int splits_of(int64_t units, int64_t steps, const Cuda& cuda) {
  int splits = 1;
  while (splits < kWarps && units * splits < 24 * cuda.properties.multiprocessors && splits * 2 <= steps) splits *= 2;
  return splits;
}

// Whether rows of weights and activations can be read 16 bytes of weights at a time.
inline bool aligned_rows(const Product& p, int64_t width) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(p.x_type));
  const int64_t load = width * bytes < 16 ? width * bytes : 16;
  return p.depth % width == 0 && p.x_stride * bytes % load == 0 &&
         reinterpret_cast<uintptr_t>(p.x) % static_cast<uintptr_t>(load) == 0 &&
         reinterpret_cast<uintptr_t>(p.weights) % 16 == 0;
}

// The sum of an output as the op stores it.
template <class T>
__device__ __forceinline__ void store_output(const Product& p, int64_t row, int64_t n, float sum) {
  if (row >= p.rows || n >= p.outputs) return;
  if (p.scales && p.layout.groups == 1) sum *= p.scales[n];
  if (p.bias) sum += p.bias[n];
  static_cast<T*>(p.out)[row * p.out_stride + n] = from_float<T>(sum);
}

}  // namespace linattn::cuda::few_rows
