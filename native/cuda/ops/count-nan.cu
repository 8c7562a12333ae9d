// Blocks count, and one block adds their counts: whole numbers, so no order matters.
#include <algorithm>

#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"
#include "ops/count-nan.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256, kBlocks = 1024;

// Over the block; every thread gets it.
__device__ __forceinline__ int64_t block_count(int64_t count) {
  __shared__ int64_t counts[kThreads / kWarp];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    count += __shfl_xor_sync(kFullMask, static_cast<long long>(count), offset);
  }
  if (threadIdx.x % kWarp == 0) counts[threadIdx.x / kWarp] = count;
  __syncthreads();
  int64_t sum = 0;
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarp; warp++) sum += counts[warp];
  return sum;
}

// By their bits: a value is NaN when it is above infinity without its sign.
template <class Bits, int kWidth>
__global__ void __launch_bounds__(kThreads) count_nans(const Bits* x, int64_t size, Bits infinity, int64_t* counts) {
  constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;
  wait_for_inputs();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kWidth;
  int64_t count = 0;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth; i < size; i += step) {
    if (i + kWidth <= size) {
      const auto pack = *reinterpret_cast<const Pack<Bits, kWidth>*>(x + i);
#pragma unroll
      for (int j = 0; j < kWidth; j++) count += (pack.value[j] & kMagnitude) > infinity;
    } else {
      for (int64_t j = i; j < size; j++) count += (x[j] & kMagnitude) > infinity;
    }
  }
  const int64_t sum = block_count(count);
  if (threadIdx.x == 0) counts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) add_counts(const int64_t* counts, int blocks, int32_t* out) {
  wait_for_inputs();
  int64_t count = 0;
  for (int i = static_cast<int>(threadIdx.x); i < blocks; i += kThreads) count += counts[i];
  const int64_t sum = block_count(count);
  if (threadIdx.x == 0) *out = static_cast<int32_t>(sum < INT32_MAX ? sum : INT32_MAX);
}

}  // namespace

void run(const CountNan& op, Cuda& cuda) {
  const int64_t size = op.x.size();
  const auto count = [&](auto infinity) {
    using Bits = decltype(infinity);
    constexpr int kWidth = 16 / sizeof(Bits);
    const bool wide = reinterpret_cast<uintptr_t>(op.x.data) % 16 == 0;
    const int64_t blocks = std::min<int64_t>(kBlocks, ceil_div(size, kThreads * (wide ? kWidth : 1)));
    auto* counts = cuda.scratch_of<int64_t>(kBlocks);
    launch_early(cuda, wide ? count_nans<Bits, kWidth> : count_nans<Bits, 1>, static_cast<unsigned>(blocks), kThreads,
                 0, op.x.as<const Bits>(), size, infinity, counts);
    launch_early(cuda, add_counts, 1, kThreads, 0, counts, static_cast<int>(blocks), op.out.as<int32_t>());
  };
  switch (op.x.dtype) {
    case DType::kFloat32:
      return count(uint32_t{0x7f800000u});
    case DType::kBFloat16:
      return count(uint16_t{0x7f80});
    default:
      return count(uint16_t{0x7c00});
  }
}

}  // namespace linattn::cuda
