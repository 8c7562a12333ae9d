// Where exactly top-k and top-p end, among the logits of the bins in which they do, whatever their number and scores.
#pragma once
#include <bit>

#include "cuda/ops/sample-sums.cuh"

namespace linattn::cuda {

constexpr int kDigits = kSampleThreads;
constexpr int kDigitBits = std::bit_width(static_cast<unsigned>(kDigits)) - 1;
static_assert(1 << kDigitBits == kDigits);

// The logits at the edges of a row's filters: listed in shared memory, or, when there are too many for the list, found
// again in the whole row. get(i): whether there is an i-th one of `count`.
struct InList {
  const Listed* list;
  int count;

  __device__ __forceinline__ bool get(int i, Listed& one) const {
    one = list[i];
    return true;
  }
};

struct InRow {
  const SampleRow& r;
  const RowEdges& edges;
  Weighing weighing;
  int count;

  __device__ __forceinline__ bool get(int id, Listed& one) const {
    const float score = r.score(id);
    one = listed(order_of(score), id);
    return score > -INFINITY && edges.at(weighing.bin(score));
  }
};

// body(one) for those of this thread. Threads side by side take logits that lie apart, as a rule of different tiles.
template <class Listing, class Body>
__device__ __forceinline__ void for_edges(const Listing& listing, Body body) {
  const int each = (listing.count + kWarp - 1) / kWarp;
  const int first = static_cast<int>(threadIdx.x) % kWarp * each, end = min(first + each, listing.count);
#pragma unroll 1
  for (int i = first + static_cast<int>(threadIdx.x) / kWarp; i < end; i += kSampleWarps) {
    Listed one;
    if (listing.get(i, one)) body(one);
  }
}

// Both become what any thread has of them.
static __device__ LINATTN_NO_INLINE void unite(Sum& ones, Sum& zeros, Sum* shared) {
  __syncthreads();
  if (threadIdx.x < 2) shared[threadIdx.x] = 0;
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i < 4; i++) {
    auto word = static_cast<unsigned>((i < 2 ? ones : zeros) >> (i % 2 * 32));
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) word |= __shfl_xor_sync(kFullMask, word, offset);
    if (threadIdx.x % kWarp == 0) atomicOr(reinterpret_cast<unsigned*>(shared) + i, word);
  }
  __syncthreads();
  ones = shared[0];
  zeros = shared[1];
}

// What those from `least` on in bins [first, last] count: one each, or their weight.
struct EdgeWeights {
  Weighing weighing;
  int first, last;
  Listed least;
  bool counted;

  __device__ __forceinline__ Sum of(Listed one) const {
    const float score = score_of(order_in(one));
    const int bin = weighing.bin(score);
    if (bin < first || bin > last || one < least) return 0;
    return counted ? 1 : weighing.fixed(weighing.weight(score));
  }
};

// A warp's worth of logits, with a lane for each.
struct Few {
  Listed list[kWarp];
  int count;  // more than the list holds where there are too many

  // For all threads of the block, between two of its barriers.
  __device__ __forceinline__ void add(Listed one) {
    const int place = atomicAdd(&count, 1);
    if (place < kWarp) list[place] = one;
  }
  // The one at which the sum of weights, begun with `before` and taken from the greatest down, reaches `target`. For
  // whole warps: `mine` and its weight are of the lane.
  __device__ __forceinline__ Listed reach(Listed mine, Sum weight, Sum before, Sum target) const {
#pragma unroll 1
    for (int i = 0; i < count; i++) {
      const Sum other = __shfl_sync(kFullMask, weight, i);
      if (list[i] > mine) before += other;
    }
    const unsigned reached = __ballot_sync(kFullMask, before < target && before + weight >= target);
    return list[max(__ffs(static_cast<int>(reached)) - 1, 0)];
  }
};

// The one at which the sum of weights, begun with `before` and taken from the greatest down, reaches `target`: digit by
// digit, until few are left. `digit_sums`: kDigits.
template <class Listing>
__device__ __forceinline__ Listed select(const Listing& listing, const EdgeWeights& weights, Sum before, Sum target,
                                         Sum* digit_sums, SumRoom& room) {
  __shared__ Few few;
  // Digits that all share are known.
  Listed ones = 0, zeros = 0;
  for_edges(listing, [&](Listed one) {
    if (weights.of(one) == 0) return;
    ones |= one;
    zeros |= ~one;
  });
  unite(ones, zeros, room.of_warps);
  int shift = kIdBits + 33 - __clzll(static_cast<long long>(ones & zeros));
  Listed prefix = ones >> shift;
  while (shift > 0) {
    const int above = shift;
    shift = max(0, shift - kDigitBits);
    const int digits = 1 << (above - shift);
    digit_sums[threadIdx.x] = 0;
    if (threadIdx.x == 0) few.count = 0;
    __syncthreads();
    for_edges(listing, [&](Listed one) {
      const Sum weight = one >> above == prefix ? weights.of(one) : 0;
      const int digit = static_cast<int>(one >> shift & static_cast<Sum>(digits - 1));
      if (weight != 0) add_halves(digit_sums[digits - 1 - digit], weight);
    });
    __syncthreads();
    const auto sums = running_sums<1>(digits, room, [digit_sums](int i) { return digit_sums[i]; });
    target = min(max(target, before + 1), before + sums.running.total);
    const Reached found = sums.reach(target - before, room);
    before += found.before;
    prefix = prefix << (above - shift) | static_cast<Sum>(digits - 1 - found.index);
    for_edges(listing, [&](Listed one) {
      if (one >> shift == prefix && weights.of(one) != 0) few.add(one);
    });
    __syncthreads();
    if (few.count <= kWarp) {
      const int lane = static_cast<int>(threadIdx.x) % kWarp;
      const Listed mine = lane < few.count ? few.list[lane] : 0;
      return few.reach(mine, lane < few.count ? weights.of(mine) : 0, before, target);
    }
    __syncthreads();
  }
  return prefix;
}

// The last one that the filters keep.
template <class Listing>
__device__ __forceinline__ Listed find_cut(const Listing& listing, const RowEdges& edges, const Weighing& weighing,
                                           float top_p, Sum* digit_sums, SumRoom& room) {
  EdgeWeights weights{weighing, edges.k_bin, edges.k_bin, 0, true};
  Sum before = 0, target = static_cast<Sum>(edges.k_left), total = edges.total;
#pragma unroll 1
  for (int filter = 0; filter < 2; filter++) {
    if (filter == 0 ? edges.k_bin < 0 : !(top_p < 1)) continue;
    if (filter == 1) {
      before = edges.below_edge;
      target = top_p_target(top_p, total, before + 1, ~Sum{0});
      weights.first = edges.first;
      weights.last = edges.last;
      weights.counted = false;
    }
    weights.least = select(listing, weights, before, target, digit_sums, room);
    __syncthreads();
    weights.counted = false;
    if (filter == 1) continue;
    weights.least &= ~static_cast<Listed>(INT32_MAX);  // equal scores stay
    Sum own = 0;
    for_edges(listing, [&](Listed one) { own += weights.of(one); });
    total = edges.below_k + run_over_block(own, room).total;
  }
  return weights.least;
}

}  // namespace linattn::cuda
