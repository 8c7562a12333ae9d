// Sums of a block in the second and the third kernel of sample, and where they reach a target. Their code is there
// once, and loops: it runs once a token, so that bringing it costs more than running it. `shared`: kWarp sums.
#pragma once
#include "cuda/ops/sample.cuh"

namespace linattn::cuda {

// What other blocks wrote to [0, count) goes to `to`, in shared memory. For all threads of the block; several reads are
// under way at once.
static __device__ LINATTN_NO_INLINE void gather(const Sum* from, int count, Sum* to) {
  constexpr int kAtOnce = 8;
  const volatile Sum* const values = from;
  const int threads = static_cast<int>(blockDim.x);
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.x); first < count; first += kAtOnce * threads) {
    Sum held[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) held[i] = first + i * threads < count ? values[first + i * threads] : 0;
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      if (first + i * threads < count) to[first + i * threads] = held[i];
    }
  }
  __syncthreads();
}

// Adds to a sum that other threads of the block add to: 64-bit atomics of shared memory are loops.
__device__ __forceinline__ void add_halves(Sum& sum, Sum value) {
  auto* const halves = reinterpret_cast<unsigned*>(&sum);
  const auto low = static_cast<unsigned>(value);
  const unsigned carry = atomicAdd(halves, low) > ~low ? 1 : 0;
  const unsigned high = static_cast<unsigned>(value >> 32) + carry;
  if (high != 0) atomicAdd(halves + 1, high);
}

// Each of the `count` values becomes the sum through it; they lie at sum_place(). For all threads of the block.
static __device__ LINATTN_NO_INLINE void running_sums(Sum* values, int count, Sum* shared) {
  const int threads = static_cast<int>(blockDim.x), by_thread = (count + threads - 1) / threads;
  const int first = static_cast<int>(threadIdx.x) * by_thread, end = min(first + by_thread, count);
  __syncthreads();
  Sum own = 0;
#pragma unroll 1
  for (int i = first; i < end; i++) own += values[sum_place(i)];
  Sum through = block_running(own, shared).before;
#pragma unroll 1
  for (int i = first; i < end; i++) {
    through += values[sum_place(i)];
    values[sum_place(i)] = through;
  }
  __syncthreads();
}

__device__ __forceinline__ Sum sum_before(const Sum* running, int i) { return i > 0 ? running[sum_place(i - 1)] : 0; }

// The first of `count` running sums that is `target` or more; the last one if none is.
__device__ __forceinline__ int first_reaching(const Sum* running, int count, Sum target) {
  int low = 0, high = count - 1;
#pragma unroll 1
  while (low < high) {
    const int middle = (low + high) / 2;
    if (running[sum_place(middle)] >= target) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The weight at which top-p is satisfied, of a whole: something, and no more than there is.
__device__ __forceinline__ Sum top_p_target(float top_p, Sum whole, Sum least, Sum most) {
  const auto target = static_cast<Sum>(ceil(static_cast<double>(top_p) * static_cast<double>(whole)));
  return min(max(target, least), most);
}

}  // namespace linattn::cuda
