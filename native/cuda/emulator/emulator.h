// Runs kernels on the CPU, one block after the other, each thread of a block a fiber: for tests where there is no GPU.
// It stands in for the part of the CUDA runtime and of CUDA C++ that native/cuda uses; device/platform.cuh says which.
// Right, not fast; and it cannot show races between blocks, nor what depends on the memory model.
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __align__(n) alignas(n)
#define __grid_constant__

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace linattn::cuda::emulator {

struct Thread {
  dim3 index;
  int lane, warp;
};

extern thread_local Thread* current;
extern thread_local dim3 block_index, block_size, grid_size;
extern thread_local unsigned char* shared_memory;

// Runs `body` as every thread of every block. Throws when threads of a block wait for each other for ever.
void launch(dim3 grid, dim3 block, size_t shared, const std::function<void()>& body);
// The same where blocks next to one another in x run at the same time, so many a cluster.
void launch_clusters(dim3 grid, dim3 block, size_t shared, unsigned cluster, const std::function<void()>& body);
// Lets the others run, for a thread that waits for a value; progressed(): says that a thread may find one.
void yield();
void progressed();
// A barrier of the threads of a cluster in two steps, and the shared memory of one of its blocks.
void cluster_arrive();
void cluster_wait();
unsigned char* shared_of_block(int rank);
void block_barrier();
// Barrier `id` of `threads` threads, as bar.sync.
void named_barrier(int id, int threads);
// Counts for the barrier without waiting, as bar.arrive.
void named_arrive(int id, int threads);
// Every lane of the warp gives `bytes` and, once all have, may read what any gave: 32 * bytes at the result, until the
// warp's next exchange.
const unsigned char* warp_exchange(const void* value, size_t bytes);
inline void warp_barrier() {
  const char nothing = 0;
  warp_exchange(&nothing, 1);
}

template <class T>
T shuffle(T value, int from) {
  T result;
  std::memcpy(&result, warp_exchange(&value, sizeof(T)) + static_cast<size_t>(from) * sizeof(T), sizeof(T));
  return result;
}

}  // namespace linattn::cuda::emulator

#define threadIdx (::linattn::cuda::emulator::current->index)
#define blockIdx (::linattn::cuda::emulator::block_index)
#define blockDim (::linattn::cuda::emulator::block_size)
#define gridDim (::linattn::cuda::emulator::grid_size)

inline void __syncthreads() { linattn::cuda::emulator::block_barrier(); }
inline void __syncwarp(unsigned = ~0u) { linattn::cuda::emulator::warp_barrier(); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}

inline int emulated_lane() { return linattn::cuda::emulator::current->lane; }
template <class T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  const int lane = emulated_lane();
  return linattn::cuda::emulator::shuffle(value, (lane & ~(width - 1)) | (from & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  return linattn::cuda::emulator::shuffle(value, emulated_lane() ^ mask);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int delta, int width = 32) {
  const int lane = emulated_lane(), to = lane % width + delta;
  return linattn::cuda::emulator::shuffle(value, to < width ? lane + delta : lane);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int delta, int width = 32) {
  const int lane = emulated_lane();
  return linattn::cuda::emulator::shuffle(value, lane % width >= delta ? lane - delta : lane);
}
inline unsigned __ballot_sync(unsigned, bool holds) {
  const char value = holds;
  const unsigned char* all = linattn::cuda::emulator::warp_exchange(&value, 1);
  unsigned bits = 0;
  for (int i = 0; i < 32; i++) bits |= static_cast<unsigned>(all[i] != 0) << i;
  return bits;
}
inline bool __any_sync(unsigned mask, bool holds) { return __ballot_sync(mask, holds) != 0; }
inline bool __all_sync(unsigned mask, bool holds) { return __ballot_sync(mask, holds) == ~0u; }
inline int __syncthreads_or(int holds) {
  static thread_local std::atomic<int> any;
  __syncthreads();
  any = 0;
  __syncthreads();
  if (holds) any = 1;
  __syncthreads();
  return any;
}

template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at = before + value;
  return before;
}
inline unsigned atomicInc(unsigned* at, unsigned last) {
  const unsigned before = *at;
  *at = before >= last ? 0 : before + 1;
  return before;
}
template <class T>
T atomicMax(T* at, T value) {
  const T before = *at;
  *at = std::max(before, value);
  return before;
}
template <class T>
T atomicMin(T* at, T value) {
  const T before = *at;
  *at = std::min(before, value);
  return before;
}
template <class T>
T atomicOr(T* at, T value) {
  const T before = *at;
  *at = before | value;
  return before;
}
template <class T>
T atomicAnd(T* at, T value) {
  const T before = *at;
  *at = before & value;
  return before;
}
template <class T>
T atomicExch(T* at, T value) {
  const T before = *at;
  *at = value;
  return before;
}
template <class T>
T atomicCAS(T* at, T expected, T value) {
  const T before = *at;
  if (before == expected) *at = value;
  return before;
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((uint64_t{a} * b) >> 32); }
using std::fabs;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

#include "cuda/emulator/runtime.h"

namespace linattn::cuda {

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulator::shared_memory);
}

}  // namespace linattn::cuda
