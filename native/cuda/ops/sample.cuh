// What the kernels of sample share. A row's vocabulary is cut into tiles, whose size depends on nothing but the
// vocabulary; a block has one or, of many rows, several. Weights are e^(score - greatest score) in fixed point: their
// sums are the same in any order, so that atomics serve, and neither the company in the batch nor the schedule changes
// a token.
#pragma once
#include "core/philox.h"
#include "cuda/cuda.h"
#include "cuda/device/block.cuh"
#include "ops/sample.h"
#include "ops/sampling-table.h"

namespace linattn::cuda {

constexpr int kSampleThreads = 256;  // at most
constexpr int kLogits = 4;           // of a thread
constexpr int kBins = 2048;          // of a row's histogram of scores
constexpr int kListed = 7168;        // logits at the edges that a row has room for; with the rest within 99 KB
constexpr int kBlocksOfMany = 8;     // of a multiprocessor, before a block takes several tiles
constexpr int kBlockTiles = 128;     // at most

using Sum = unsigned long long;

// Where value i of an array of sums lies: those of a thread, which lie next to one another, are a place apart from the
// next thread's, so that all banks of shared memory serve.
constexpr int kSumsOfThread = 8;
__host__ __device__ constexpr int sum_place(int i) { return i + i / kSumsOfThread; }
constexpr int kRoom = kSampleThreads * kLogits;  // sums that a block has room for, and no fewer than a tile has logits
constexpr int kRoomPlaces = sum_place(kRoom);
constexpr int kBinPlaces = sum_place(kBins - 1) + 1;

struct TileStats {
  float greatest, sum;  // of the logits as they are: NaN where one is NaN or +inf; sum of e^(logit - greatest)
  Sum best;             // greatest score and its lowest id, see best_of; 0: none
};

// A row between the kernels.
struct SampleState {
  unsigned arrived[2];  // blocks that have come through the second and the third kernel
  unsigned listed;
  int open;                   // whether the third kernel draws
  float greatest;             // score
  int first_edge, last_edge;  // bins among which top-p ends; without it the bin where top-k does; kBins: none does
  int k_bin, k_left;          // where top-k ends (-1: it takes nothing away), and how many of that bin it keeps
  Sum below_edge, below_k;    // weights of the bins before first_edge and before k_bin
  Sum total;                  // of all weights
  double log_total;           // logprob = logit - log_total
};

// A logit at the edge of a filter. The greater one goes before: that of the greater score, of equal ones the lower id.
using Listed = Sum;
constexpr int kIdBits = 31;
__device__ __forceinline__ Listed listed(uint32_t order, int id) {
  return Sum{order} << kIdBits | static_cast<uint32_t>(INT32_MAX - id);
}
__device__ __forceinline__ uint32_t order_in(Listed one) { return static_cast<uint32_t>(one >> kIdBits); }
__device__ __forceinline__ int id_in(Listed one) { return INT32_MAX - static_cast<int>(one & INT32_MAX); }

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
  Sum* sums;              // by tile, see sum_place: weights that a draw may fall on
  int sum_places;         // of a row
  Sum *counts, *weights;  // by bin, see sum_place
  SampleState* states;
  Listed* list;
  Fault* fault;
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

// A thread's logits of a tile.
struct TileLogits {
  float4 fours[kLogits / 4];
};

// The row and the tiles of this block. slot < 0: there is nothing to do.
struct SampleRow {
  int row, first_tile, end_tile, slot;
  const float* logits;
  SamplingParams params;
  SamplingIntParams int_params;
  const uint32_t *seen = nullptr, *allowed = nullptr;
  int vocab;

  __device__ SampleRow(const SampleView& x)
      : SampleRow(x, static_cast<int>(blockIdx.x / static_cast<unsigned>(x.blocks)),
                  static_cast<int>(blockIdx.x % static_cast<unsigned>(x.blocks)) * x.block_tiles, x.block_tiles) {}
  // Of a block that has `tiles` of them.
  __device__ SampleRow(const SampleView& x, int row, int first_tile, int tiles)
      : row(row),
        first_tile(first_tile),
        end_tile(min(first_tile + tiles, x.tiles)),
        slot(x.rows[row]),
        vocab(x.vocab) {
    if (slot < -1 || slot >= x.slots) {
      if (first_tile == 0 && threadIdx.x == 0) {
        report(x.fault, FaultKind::kFromTo, FaultName::kRows, row, slot, -1, x.slots - 1);
      }
      slot = -1;
    }
    if (slot < 0) return;
    logits = x.logits + row * x.stride;
    params = *reinterpret_cast<const SamplingParams*>(x.params + slot * x.params_stride);
    int_params = *reinterpret_cast<const SamplingIntParams*>(x.int_params + slot * x.int_params_stride);
    if (x.seen && params.repetition_penalty != 1) seen = x.seen + slot * x.seen_stride;
    if (x.allowed && int_params.restricted) allowed = x.allowed + slot * x.allowed_stride;
  }

  __device__ bool greedy() const { return !(params.temperature > 0); }
  __device__ bool filtered() const { return int_params.top_k > 0 || params.top_p < 1; }

  __device__ float score(int id, float logit) const {
    if (allowed && !(allowed[id / 32] >> (id % 32) & 1)) return -INFINITY;
    if (seen && seen[id / 32] >> (id % 32) & 1) {
      logit = logit < 0 ? logit * params.repetition_penalty : logit / params.repetition_penalty;
    }
    if (!greedy()) logit /= params.temperature;
    return logit == 0 ? 0.0f : logit;  // -0 and 0 are equal, so their order must be
  }
  __device__ float score(int id) const { return score(id, logits[id]); }

  // Of the logits of a tile, those from here on may have the greatest score or one equal to it.
  __device__ float least_rival(float greatest) const {
    if (seen || allowed) return -INFINITY;
    if (greedy()) return greatest;
    // A division rounds nearly equal logits to one score; near 0 many of them.
    return fabsf(greatest / params.temperature) < 1e-30f ? -INFINITY : greatest - fabsf(greatest) * 1e-6f;
  }

  // The loads are under way together.
  __device__ __forceinline__ TileLogits load(const SampleView& x, int tile) const {
    const int threads = static_cast<int>(blockDim.x);
    const int first = tile * threads * kLogits + static_cast<int>(threadIdx.x) * 4;
    TileLogits held;
    if (x.by_fours) {
#pragma unroll
      for (int u = 0; u < kLogits / 4; u++) {
        const int id = first + u * threads * 4;
        held.fours[u] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
        if (id < vocab) held.fours[u] = *reinterpret_cast<const float4*>(logits + id);
      }
      return held;
    }
    const auto at = [&](int i) { return i < vocab ? logits[i] : -INFINITY; };
#pragma unroll
    for (int u = 0; u < kLogits / 4; u++) {
      const int id = first + u * threads * 4;
      held.fours[u] = {at(id), at(id + 1), at(id + 2), at(id + 3)};
    }
    return held;
  }

  // body(id, logit) for this thread's logits of a tile. Without kMany the body is there once, as code that runs once
  // takes as long as the memory takes to bring it.
  template <bool kMany, class Body>
  __device__ __forceinline__ void for_logits(TileLogits held, int tile, Body body) const {
    const int threads = static_cast<int>(blockDim.x);
    const int first = tile * threads * kLogits + static_cast<int>(threadIdx.x) * 4;
    if constexpr (kMany) {
#pragma unroll
      for (int u = 0; u < kLogits / 4; u++) {
        const int id = first + u * threads * 4;
        const float values[4] = {held.fours[u].x, held.fours[u].y, held.fours[u].z, held.fours[u].w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
          if (id + i < vocab) body(id + i, values[i]);
        }
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < kLogits; i++) {
        const int id = first + i / 4 * threads * 4 + i % 4;
        if (id < vocab) body(id, held.fours[0].x);
        held.fours[0] = {held.fours[0].y, held.fours[0].z, held.fours[0].w, 0};
        if (i % 4 < 3) continue;
#pragma unroll
        for (int u = 1; u < kLogits / 4; u++) held.fours[u - 1] = held.fours[u];
      }
    }
  }
};

// A score beside the greatest one of its row.
struct Weighing {
  float greatest, unit;

  __device__ float weight(float score) const { return expf(score - greatest); }
  __device__ Sum fixed(float weight) const { return static_cast<Sum>(weight * unit); }
  // Rises as the score falls: 256 bins for each doubling of 1 + the distance, up to a distance of 255.
  __device__ int bin(float score) const {
    const unsigned above = (__float_as_uint(1.0f + (greatest - score)) - __float_as_uint(1.0f)) >> 15;
    return static_cast<int>(min(above, static_cast<unsigned>(kBins - 1)));
  }
};

// Sums of the tiles of a block. Where a block has many of them its warps do not wait for each other.
template <bool kMany>
struct TileSums {
  Sum shared[kMany ? kBlockTiles : kWarp];

  __device__ void clear() {
    if constexpr (kMany) {
      for (int i = static_cast<int>(threadIdx.x); i < kBlockTiles; i += static_cast<int>(blockDim.x)) shared[i] = 0;
      __syncthreads();
    }
  }
  // What the threads have of a tile goes to sums[tile], at once or with put().
  __device__ void add(const SampleRow& r, int tile, Sum own, Sum* sums) {
    if constexpr (kMany) {
#pragma unroll
      for (int offset = kWarp / 2; offset > 0; offset /= 2) own += __shfl_xor_sync(kFullMask, own, offset);
      if (threadIdx.x % kWarp == 0) atomicAdd(&shared[tile - r.first_tile], own);
    } else {
      own = block_total(own, shared);
      if (threadIdx.x == 0) sums[sum_place(tile)] = own;
    }
  }
  __device__ void put(const SampleRow& r, Sum* sums) {
    if constexpr (kMany) {
      __syncthreads();
      const int count = r.end_tile - r.first_tile;
      for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
        sums[sum_place(r.first_tile + i)] = shared[i];
      }
    }
  }
};

// Whether this block is the last of its row to come here: what the others wrote before is seen then.
__device__ __forceinline__ bool last_of_row(unsigned* arrived, int blocks) {
  __shared__ int before;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) before = static_cast<int>(atomicAdd(arrived, 1u));
  __syncthreads();
  const bool last = before == blocks - 1;
  __threadfence();
  return last;
}

// What follows the first kernel.
void find_edges(Cuda& cuda, dim3 grid, dim3 threads, unsigned rows, const SampleView& x);
void resolve_edges(Cuda& cuda, dim3 grid, dim3 threads, unsigned rows, const SampleView& x);

}  // namespace linattn::cuda
