// What the kernels of sample share. A row's vocabulary is cut into tiles, whose size depends on nothing; a block has
// one or, of many rows, several. Weights are e^(score - greatest score) in fixed point: their sums are the same in any
// order, so that atomics serve, and neither the company in the batch nor the schedule changes a token.
#pragma once
#include "core/philox.h"
#include "cuda/cuda.h"
#include "cuda/device/platform.cuh"
#include "ops/sample.h"
#include "ops/sampling-table.h"

namespace linattn::cuda {

#ifdef LINATTN_CUDA_EMULATOR
constexpr int kSampleThreads = 64;  // each costs as much as it does, even where a vocabulary has nothing for it
#else
constexpr int kSampleThreads = 256;
#endif
constexpr int kSampleWarps = kSampleThreads / kWarp;
constexpr int kLogits = 4;  // of a thread, next to one another
constexpr int kTile = kSampleThreads * kLogits;
constexpr int kBins = 2048;       // of a row's histogram of scores
constexpr int kListed = 7168;     // logits at the edges that a row has room for; with the rest within 99 KB
constexpr int kBlocksOfMany = 8;  // of a multiprocessor, before a block takes several tiles
constexpr int kBlockTiles = 128;  // at most

using Sum = unsigned long long;

// Where a bin of a histogram lies: a thread has bins next to one another, and neighbouring threads read together.
constexpr int kBinsOfThread = kBins / kSampleThreads;
__host__ __device__ constexpr int bin_place(int bin) {
  return bin % kBinsOfThread * kSampleThreads + bin / kBinsOfThread;
}

struct alignas(16) TileStats {
  float greatest, sum;  // of the logits as they are; sum of e^(logit - greatest)
  Sum best;             // greatest score and its lowest id, see best_of; 0: none; kWrong: a logit is NaN or +inf
};
constexpr Sum kWrong = ~Sum{0};

// A row of the tables.
struct RowSettings {
  int slot;  // < 0: there is nothing to do
  SamplingParams params;
  SamplingIntParams int_params;

  __device__ bool greedy() const { return !(params.temperature > 0); }
  __device__ bool filtered() const { return int_params.top_k > 0 || params.top_p < 1; }
};

// In which bins the filters of a row end.
struct RowEdges {
  int first, last;          // bins among which top-p ends; without it the bin where top-k does; kBins: none does
  int k_bin, k_left;        // where top-k ends (-1: it takes nothing away), and how many of that bin it keeps
  Sum below_edge, below_k;  // weights of the bins before `first` and before k_bin
  Sum total;                // of all weights

  __device__ __forceinline__ bool at(int bin) const { return (bin >= first && bin <= last) || bin == k_bin; }
  // Whether only top-p ends, in a bin that has finer ones.
  __device__ __forceinline__ bool fine() const { return k_bin < 0 && first == last && first < kBins - 1; }
};

// A row between the kernels.
struct SampleState {
  RowSettings settings;
  int open;          // whether the third kernel draws
  unsigned listed;   // logits at the edges
  Sum arrived;       // blocks that have come through the third kernel
  float greatest;    // score
  double log_total;  // logprob = logit - log_total
  RowEdges edges;    // of many rows
};

// A logit at the edge of a filter. The greater one goes before: that of the greater score, of equal ones the lower id.
using Listed = Sum;
constexpr int kIdBits = 31;
__device__ __forceinline__ Listed listed(uint32_t order, int id) {
  return Sum{order} << kIdBits | static_cast<uint32_t>(INT32_MAX - id);
}
__device__ __forceinline__ uint32_t order_in(Listed one) { return static_cast<uint32_t>(one >> kIdBits); }
__device__ __forceinline__ int id_in(Listed one) { return INT32_MAX - static_cast<int>(one & INT32_MAX); }

// Of a thread.
struct Logits {
  float at[kLogits];
};

struct SampleView {
  const float* logits;
  int64_t stride;
  bool by_fours;  // rows are whole pieces of 16 bytes, and aligned to them
  int vocab, tiles, slots;
  int block_tiles, blocks;  // tiles of a block, blocks of a row
  const int32_t *rows, *positions;
  const float* params;
  int64_t params_stride;
  const int32_t* int_params;
  int64_t int_params_stride;
  const uint32_t *seen, *allowed;
  int64_t seen_stride, allowed_stride;
  int32_t* token;
  float* logprob;
  float unit;  // of the fixed point, a power of two
  TileStats* stats;
  Sum* sums;  // by tile: weights that a draw may fall on
  Sum *counts, *weights,
      *fine;  // by bin, see bin_place; `fine`: by finer bins of the one where top-p ends, of few rows
  SampleState* states;
  Listed* list;
  Fault* fault;

  // This thread's logits of a tile; -inf beyond the end.
  __device__ __forceinline__ Logits load(int row, int tile) const {
    const float* from = logits + row * stride;
    const int first = tile * kTile + static_cast<int>(threadIdx.x) * kLogits;
    if (by_fours) {
      float4 four = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
      if (first < vocab) four = *reinterpret_cast<const float4*>(from + first);
      return {{four.x, four.y, four.z, four.w}};
    }
    Logits held;
#pragma unroll
    for (int i = 0; i < kLogits; i++) held.at[i] = first + i < vocab ? from[first + i] : -INFINITY;
    return held;
  }
};

// The row and the tiles of a block of a grid of rows and their blocks.
struct BlockTiles {
  int row, block, first, end;

  __device__ explicit BlockTiles(const SampleView& x)
      : row(static_cast<int>(blockIdx.x)),
        block(static_cast<int>(blockIdx.y)),
        first(block * x.block_tiles),
        end(min(first + x.block_tiles, x.tiles)) {}
};

// Rises with x, for every x but NaN.
__device__ __forceinline__ uint32_t order_of(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float score_of(uint32_t order) {
  return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

__device__ __forceinline__ Sum best_of(float score, int id) {
  return score == -INFINITY ? 0 : Sum{order_of(score)} << 32 | ~static_cast<uint32_t>(id);
}

// A row that there is something to do for.
struct SampleRow {
  int row, vocab;
  const float* logits;
  RowSettings settings;
  const uint32_t *seen = nullptr, *allowed = nullptr;

  __device__ SampleRow(const SampleView& x, int row, const RowSettings& settings)
      : row(row), vocab(x.vocab), logits(x.logits + row * x.stride), settings(settings) {
    if (x.seen && settings.params.repetition_penalty != 1) seen = x.seen + settings.slot * x.seen_stride;
    if (x.allowed && settings.int_params.restricted) allowed = x.allowed + settings.slot * x.allowed_stride;
  }

  __device__ float score(int id) const {
    float score = logits[id];
    if (seen && seen[id / 32] >> (id % 32) & 1) score = penalised(score);
    if (allowed && !(allowed[id / 32] >> (id % 32) & 1)) return -INFINITY;
    return divided(score);
  }
  // Of this thread's logits of a tile.
  __device__ __forceinline__ Logits scores(Logits held, int tile) const {
    const int first = tile * kTile + static_cast<int>(threadIdx.x) * kLogits;
    static_assert(32 % kLogits == 0);
    const auto bits = [&](const uint32_t* words) { return words[first / 32] >> (first % 32); };
    if (seen && first < vocab) {
      const uint32_t met = bits(seen);
#pragma unroll
      for (int i = 0; i < kLogits; i++) {
        if (met >> i & 1) held.at[i] = penalised(held.at[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kLogits; i++) held.at[i] = divided(held.at[i]);
    if (allowed && first < vocab) {
      const uint32_t kept = bits(allowed);
#pragma unroll
      for (int i = 0; i < kLogits; i++) {
        if (!(kept >> i & 1)) held.at[i] = -INFINITY;
      }
    }
    return held;
  }

  // Of the logits of a tile, those from here on may have the greatest score or one equal to it.
  __device__ float least_rival(float greatest) const {
    if (seen || allowed) return -INFINITY;
    if (settings.greedy()) return greatest;
    // A division rounds nearly equal logits to one score; near 0 many of them.
    return fabsf(greatest / settings.params.temperature) < 1e-30f ? -INFINITY : greatest - fabsf(greatest) * 1e-6f;
  }

 private:
  __device__ __forceinline__ float penalised(float logit) const {
    const float penalty = settings.params.repetition_penalty;
    return logit < 0 ? logit * penalty : logit / penalty;
  }
  __device__ __forceinline__ float divided(float score) const {
    if (!settings.greedy()) score /= settings.params.temperature;
    return score == 0 ? 0.0f : score;  // -0 and 0 are equal, so their order must be
  }
};

// A score beside the greatest one of its row.
struct Weighing {
  float greatest, unit;

  __device__ __forceinline__ float weight(float score) const { return expf(score - greatest); }
  __device__ __forceinline__ Sum fixed(float weight) const { return static_cast<Sum>(weight * unit); }

  // Rises as the score falls.
  __device__ __forceinline__ unsigned fall(float score) const {
    return __float_as_uint(1.0f + (greatest - score)) - __float_as_uint(1.0f);
  }
  // 256 bins for each doubling of 1 + the distance, up to a distance of 255.
  __device__ __forceinline__ int bin(float score) const {
    return static_cast<int>(min(fall(score) >> 15, static_cast<unsigned>(kBins - 1)));
  }
  // Within a bin but the last one.
  __device__ __forceinline__ int fine_bin(float score) const {
    return static_cast<int>(fall(score) >> 4 & static_cast<unsigned>(kBins - 1));
  }
};

// What follows the first kernel.
void find_edges(Cuda& cuda, unsigned rows, const SampleView& x);
void resolve_edges(Cuda& cuda, unsigned rows, const SampleView& x);

}  // namespace linattn::cuda
