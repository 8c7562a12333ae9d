// What the splits of a key head leave for the blocks that merge them, word by word, and the merge.
#pragma once
#include <cstring>
#include <type_traits>

#include "cuda/device/float.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/softmax-attention.cuh"

namespace linattn::cuda {

constexpr int kMostSplits = 64;
constexpr int kMergeGroups = 16;  // sums over every 16th split
constexpr int kMostParts = 2112;  // of query heads and splits
constexpr int kMostWidth = 256;
#ifdef LINATTN_CUDA_EMULATOR
constexpr int kMostMergers = 1;  // blocks run one after the other
#else
constexpr int kMostMergers = 4;  // blocks of a key head
#endif

// What the splits leave: of each query head and split the sums of weighted values, then maximum and sum. A word is 0
// when there is nothing, between kernels all are.
static __device__ uint4 part_words[kMostParts * kMostWidth / 4];
static __device__ uint32_t part_maxima[kMostParts], part_sums[kMostParts];

template <class Shape>
struct MergeShared {
  float weights[kMostSplits], sums[kMostSplits], max[kMostSplits];
  float4 totals[kMergeGroups][Shape::kWidth / 4];
};
// What lies there when it is called, every time.
__device__ __forceinline__ int32_t read_now(const int32_t* from) {
#ifdef LINATTN_CUDA_EMULATOR
  return *from;
#else
  int32_t value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
#endif
}

// A number as a word that is not 0: the bits of one NaN are those of another.
__device__ __forceinline__ uint32_t word_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits == 0xffffffffu ? 0x80000000u : ~bits;
}

__device__ __forceinline__ float number_of(uint32_t word) {
  const uint32_t bits = ~word;
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// What is there now, as far as other blocks have written it.
__device__ __forceinline__ uint4 look(const uint4* from) {
#ifdef LINATTN_CUDA_EMULATOR
  return *from;
#else
  uint4 words;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from)
               : "memory");
  return words;
#endif
}

__device__ __forceinline__ uint32_t look(const uint32_t* from) {
  return static_cast<uint32_t>(read_now(reinterpret_cast<const int32_t*>(from)));
}

__device__ __forceinline__ bool complete(const uint4& words) {
  return words.x != 0 && words.y != 0 && words.z != 0 && words.w != 0;
}
__device__ __forceinline__ bool complete(uint32_t word) { return word != 0; }

// The output of a query head from the parts of all splits; `part` is that of the first one. kDeep: of every 16th split,
// there are so many at most. `dry`: fetches the code, to no effect.
template <int kDeep, class Shape>
LINATTN_NO_INLINE __device__ void merge_parts(const AttentionView& x, int splits, int part, OutputRow at,
                                              MergeShared<Shape>& shared, bool dry) {
  using T = typename Shape::T;
  constexpr int kColumns = Shape::kWidth / 4, kTeams = Shape::kMultipliers / kColumns, kEach = kMergeGroups / kTeams;
  const int thread = static_cast<int>(threadIdx.x), column = thread % kColumns, first = thread / kColumns * kEach;
  uint4* const words = part_words + static_cast<int64_t>(part) * kColumns + column;
  const bool multiplies = thread < Shape::kMultipliers;
  uint4 got[kDeep][kEach]{};
  uint32_t max = 0, sum = 0;
  const auto for_own = [&](auto body) {
#pragma unroll
    for (int d = 0; d < kDeep; d++) {
#pragma unroll
      for (int g = 0; g < kEach; g++) {
        const int s = d * kMergeGroups + first + g;
        if (multiplies && s < splits) body(got[d][g], words + s * kColumns);
      }
    }
    if (thread < splits) {
      body(max, part_maxima + part + thread);
      body(sum, part_sums + part + thread);
    }
  };
#pragma unroll 1
  for (bool all = false; !all;) {
    for_own([](auto& word, auto* from) {
      if (!complete(word)) word = look(from);
    });
    all = true;
    if (dry) break;
    for_own([&](const auto& word, auto*) { all &= complete(word); });
  }
  __syncwarp();  // lanes that waited longer
  if (!dry) for_own([](auto& word, auto* from) { *from = std::remove_reference_t<decltype(word)>{}; });
  __syncthreads();  // for racecheck: test/gpu/sanitize.js
  if (thread < splits) {
    shared.max[thread] = number_of(max);
    shared.sums[thread] = number_of(sum);
  }
  __syncthreads();
  const int lane = thread % kWarp;
  const float top = warp_max(fmaxf(lane < splits ? shared.max[lane] : -INFINITY,
                                   lane + kWarp < splits ? shared.max[lane + kWarp] : -INFINITY));
  if (thread < splits) shared.weights[thread] = shared.sums[thread] == 0 ? 0.0f : expf(shared.max[thread] - top);
  __syncthreads();
#pragma unroll
  for (int g = 0; g < kEach; g++) {
    float4 total{0, 0, 0, 0};
#pragma unroll
    for (int d = 0; d < kDeep; d++) {
      const int s = d * kMergeGroups + first + g;
      if (!multiplies || s >= splits) continue;
      const float weight = shared.weights[s];
      if (weight == 0) continue;
      total.x += weight * number_of(got[d][g].x);
      total.y += weight * number_of(got[d][g].y);
      total.z += weight * number_of(got[d][g].z);
      total.w += weight * number_of(got[d][g].w);
    }
    if (multiplies) shared.totals[first + g][column] = total;
  }
  __syncthreads();
  if (thread < kColumns && !dry) {
    float4 all = shared.totals[0][thread];
#pragma unroll
    for (int g = 1; g < kMergeGroups; g++) {
      const float4 total = shared.totals[g][thread];
      all.x += total.x;
      all.y += total.y;
      all.z += total.z;
      all.w += total.w;
    }
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += shared.weights[s] * shared.sums[s];
    const float factor = finish_row(x, at, top, sum, thread == 0);
    Pack<T, 4> out;
    out.value[0] = from_float<T>(all.x * factor);
    out.value[1] = from_float<T>(all.y * factor);
    out.value[2] = from_float<T>(all.z * factor);
    out.value[3] = from_float<T>(all.w * factor);
    *reinterpret_cast<Pack<T, 4>*>(static_cast<T*>(x.out) + at.token * x.out_stride + at.head * Shape::kWidth +
                                   4 * thread) = out;
  }
  __syncthreads();
}

}  // namespace linattn::cuda
