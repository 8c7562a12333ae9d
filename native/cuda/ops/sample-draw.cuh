// The end of a row: where its filters end, and the draw.
#pragma once
#include "cuda/ops/sample-select.cuh"

namespace linattn::cuda {

constexpr int kTileRoom = 1024;  // tiles whose sums shared memory has room for
constexpr int kHeldTiles = kTileRoom / kSampleThreads;
static_assert(kDigits <= kTileRoom);
constexpr size_t kEndBytes = kListed * sizeof(Listed) + kTileRoom * sizeof(Sum);

// What a block needs to end a row.
struct RowEnd {
  const SampleView& x;
  const SampleRow& r;
  const RowEdges& edges;
  float greatest;
  double log_total;
  int position;
  int listed;  // logits at the edges
  SumRoom& room;

  __device__ __forceinline__ Weighing weighing() const { return {greatest, x.unit}; }
  __device__ __forceinline__ Sum* tile_sums() const { return x.sums + static_cast<int64_t>(r.row) * x.tiles; }
  // Of those that the other filters keep.
  __device__ __forceinline__ Sum weight_of(float score) const {
    const float weight = weighing().weight(score);
    return weight >= r.settings.params.min_p ? weighing().fixed(weight) : 0;
  }
  __device__ __forceinline__ void add_to_tile(Sum* by_tile, Listed one) const {
    const Sum weight = weight_of(score_of(order_in(one)));
    if (weight != 0) add_halves(by_tile[id_in(one) / kTile], weight);
  }
};

// What other blocks wrote to [0, count) goes to `to`. Several reads are under way at once.
__device__ __forceinline__ void gather(const Sum* from, int count, Sum* to) {
  constexpr int kAtOnce = 8;
  const volatile Sum* const values = from;
#pragma unroll 1
  for (int first = static_cast<int>(threadIdx.x); first < count; first += kAtOnce * kSampleThreads) {
    Sum held[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      held[i] = first + i * kSampleThreads < count ? values[first + i * kSampleThreads] : 0;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      if (first + i * kSampleThreads < count) to[first + i * kSampleThreads] = held[i];
    }
  }
}

// The share that the position's random number takes of all weights. `cut`: the last one kept of those at the edges;
// `by_tile`: what is kept of the tiles weighs so much. For all threads of the block.
__device__ __forceinline__ void draw(const RowEnd& end, const Sum* by_tile, Listed cut) {
  const SampleView& x = end.x;
  const SampleRow& r = end.r;
  const auto tiles = running_sums<kHeldTiles>(x.tiles, end.room, [by_tile](int tile) { return by_tile[tile]; });
  const SamplingIntParams& params = r.settings.int_params;
  const auto random = philox({static_cast<uint32_t>(end.position), 0, 0, 0}, {params.seed_low, params.seed_high});
  const Sum total = tiles.running.total, share = Sum{random[0] >> 5} << 26 | random[1] >> 6;  // of 2^53
  const Sum target = (__umul64hi(share, total) << 11 | (share * total) >> 53) + 1;
  const Reached tile = tiles.reach(target, end.room);
  const Logits logits = x.load(r.row, tile.index), scores = r.scores(logits, tile.index);
  const int first = tile.index * kTile + static_cast<int>(threadIdx.x) * kLogits;
  Sum weights[kLogits], own = 0;
#pragma unroll
  for (int i = 0; i < kLogits; i++) {
    const float score = scores.at[i];
    weights[i] = score > -INFINITY && listed(order_of(score), first + i) >= cut ? end.weight_of(score) : 0;
    own += weights[i];
  }
  Sum before = tile.before + run_over_block(own, end.room).before;
#pragma unroll
  for (int i = 0; i < kLogits; i++) {
    if (before < target && before + weights[i] >= target) {
      x.token[r.row] = first + i;
      x.logprob[r.row] = static_cast<float>(static_cast<double>(logits.at[i]) - end.log_total);
    }
    before += weights[i];
  }
}

template <class Listing>
__device__ __forceinline__ void end_listing(const RowEnd& end, const Listing& listing, Sum* shared_sums) {
  const Listed cut = find_cut(listing, end.edges, end.weighing(), end.r.settings.params.top_p, shared_sums, end.room);
  Sum* by_tile = end.tile_sums();
  __syncthreads();
  if (end.x.tiles <= kTileRoom) {
    gather(by_tile, end.x.tiles, shared_sums);
    by_tile = shared_sums;
    __syncthreads();
  }
  for_edges(listing, [&](Listed one) {
    if (one >= cut) end.add_to_tile(by_tile, one);
  });
  __syncthreads();
  draw(end, by_tile, cut);
}

// Whatever the filters and the number of logits at their edges. For all threads of the block, with kEndBytes of dynamic
// shared memory.
static __device__ LINATTN_NO_INLINE void end_any(const RowEnd end) {
  auto* const list = dynamic_shared<Listed>();
  Sum* const shared_sums = list + kListed;
  if (end.listed > kListed) {
    return end_listing(end, InRow{end.r, end.edges, end.weighing(), end.x.vocab}, shared_sums);
  }
  gather(end.x.list + static_cast<int64_t>(end.r.row) * kListed, end.listed, list);
  __syncthreads();
  end_listing(end, InList{list, end.listed}, shared_sums);
}

// Where only top-p ends, in a bin whose finer ones are summed. False, with nothing written, where many logits share
// one.
__device__ __forceinline__ bool end_fine(const RowEnd& end) {
  __shared__ Few few;
  constexpr int kAtOnce = 8;
  const SampleView& x = end.x;
  if (!end.edges.fine() || end.listed > kListed || x.tiles > kTileRoom) return false;
  auto* const by_tile = dynamic_shared<Sum>();
  const volatile Listed* const list = x.list + static_cast<int64_t>(end.r.row) * kListed;
  const volatile Sum* const fine = x.fine + static_cast<int64_t>(end.r.row) * kBins;
  Listed held[kAtOnce];
  const auto hold = [&](int first) {
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      const int at = first + i * kSampleThreads;
      held[i] = at < end.listed ? list[at] : 0;
    }
  };
  int first = static_cast<int>(threadIdx.x);
  hold(first);
  if (threadIdx.x == 0) few.count = 0;
  const auto sums = running_sums<kBinsOfThread>(kBins, end.room, [fine](int bin) { return fine[bin_place(bin)]; });
  gather(end.tile_sums(), x.tiles, by_tile);
  Sum before = end.edges.below_edge;
  Sum target = top_p_target(end.r.settings.params.top_p, end.edges.total, before + 1, ~Sum{0});
  target = min(target, before + sums.running.total);
  const Reached found = sums.reach(target - before, end.room);
  before += found.before;
  const Weighing weighing = end.weighing();
  while (true) {
#pragma unroll
    for (int i = 0; i < kAtOnce; i++) {
      if (held[i] == 0) continue;
      const int bin = weighing.fine_bin(score_of(order_in(held[i])));
      if (bin < found.index) end.add_to_tile(by_tile, held[i]);
      if (bin == found.index) few.add(held[i]);
    }
    first += kAtOnce * kSampleThreads;
    if (first >= end.listed) break;
    hold(first);
  }
  __syncthreads();
  if (few.count > kWarp) return false;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool has = lane < few.count;
  const Listed mine = has ? few.list[lane] : 0;
  const Listed cut =
      few.reach(mine, has ? weighing.fixed(weighing.weight(score_of(order_in(mine)))) : 0, before, target);
  if (threadIdx.x < kWarp && has && mine >= cut) end.add_to_tile(by_tile, mine);
  __syncthreads();
  draw(end, by_tile, cut);
  return true;
}

}  // namespace linattn::cuda
