// Sums of a block in the second and the third kernel of sample, and where they reach a target.
#pragma once
#include "cuda/device/block.cuh"
#include "cuda/ops/sample.cuh"

namespace linattn::cuda {

// A value among running sums: the sum before it and the sum with it.
struct Reached {
  int index;
  Sum before, through;
};

// Shared memory of a block.
struct SumRoom {
  Sum of_warps[kSampleWarps];
  Reached reached;
};

// For all threads of the block. Its code is there once: what runs once takes as long as its code takes to come.
static __device__ LINATTN_NO_INLINE Running<Sum> run_over_block(Sum own, SumRoom& room) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  Sum through = own;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const Sum lower = __shfl_up_sync(kFullMask, through, offset);
    if (lane >= offset) through += lower;
  }
  __syncthreads();
  if (lane == kWarp - 1) room.of_warps[warp] = through;
  if (threadIdx.x == 0) room.reached = {};
  __syncthreads();
  Running<Sum> running{through - own, 0};
#pragma unroll
  for (int i = 0; i < kSampleWarps; i++) {
    if (i < warp) running.before += room.of_warps[i];
    running.total += room.of_warps[i];
  }
  return running;
}

// Running sums of `count` values, get(i), those of a thread next to one another: it holds kHeld of them.
template <int kHeld, class Get>
struct RunningSums {
  Get get;
  int first, end;
  Sum held[kHeld], own = 0;
  Running<Sum> running;

  __device__ __forceinline__ RunningSums(int count, SumRoom& room, Get get) : get(get) {
    const int each = (count + kSampleThreads - 1) / kSampleThreads;
    first = static_cast<int>(threadIdx.x) * each;
    end = min(first + each, count);
#pragma unroll
    for (int i = 0; i < kHeld; i++) held[i] = first + i < end ? get(first + i) : 0;
#pragma unroll
    for (int i = 0; i < kHeld; i++) own += held[i];
#pragma unroll 1
    for (int i = first + kHeld; i < end; i++) own += get(i);
    running = run_over_block(own, room);
  }

  // The first value whose sum reaches `target`, from 1 to the sum of all. Every thread gets it.
  __device__ __forceinline__ Reached reach(Sum target, SumRoom& room) const {
    const bool here = running.before < target && target <= running.before + own;
    return find(here, room, [target](int, Sum through) { return through < target; });
  }

  __device__ __forceinline__ Reached at(int wanted, SumRoom& room) const {
    return find(wanted >= first && wanted < end, room, [wanted](int index, Sum) { return index < wanted; });
  }

 private:
  // The one of this thread behind those that come before it.
  template <class Before>
  __device__ __forceinline__ Reached find(bool here, SumRoom& room, Before comes_before) const {
    if (here) {
      Reached reached{first, running.before, running.before};
      const auto pass = [&](int index, Sum value) {
        const Sum through = reached.through + value;
        if (index > reached.index) return;
        reached.through = through;
        if (!comes_before(index, through)) return;
        reached.before = through;
        reached.index++;
      };
#pragma unroll
      for (int i = 0; i < kHeld; i++) pass(first + i, held[i]);
#pragma unroll 1
      for (int i = first + kHeld; i < end; i++) pass(i, get(i));
      room.reached = reached;
    }
    __syncthreads();
    const Reached reached = room.reached;
    __syncthreads();
    return reached;
  }
};

template <int kHeld, class Get>
__device__ __forceinline__ RunningSums<kHeld, Get> running_sums(int count, SumRoom& room, Get get) {
  return {count, room, get};
}

// Adds to a sum of shared memory that other threads of the block add to: 64-bit atomics there are loops.
__device__ __forceinline__ void add_halves(Sum& sum, Sum value) {
  auto* const halves = reinterpret_cast<unsigned*>(&sum);
  const auto low = static_cast<unsigned>(value);
  const unsigned carry = atomicAdd(halves, low) > ~low ? 1 : 0;
  const unsigned high = static_cast<unsigned>(value >> 32) + carry;
  if (high != 0) atomicAdd(halves + 1, high);
}

// The weight at which top-p is satisfied, of a whole: something, and no more than there is.
__device__ __forceinline__ Sum top_p_target(float top_p, Sum whole, Sum least, Sum most) {
  const auto target = static_cast<Sum>(ceil(static_cast<double>(top_p) * static_cast<double>(whole)));
  return min(max(target, least), most);
}

// In which bins the filters of a row end, when all bins are summed. Every thread gets it.
__device__ __forceinline__ RowEdges find_bins(const SampleView& x, int row, const RowSettings& settings,
                                              SumRoom& room) {
  RowEdges edges{kBins, kBins, -1, 0, 0, 0, 0};
  if (!settings.filtered()) return edges;
  const auto sums_of = [&](const Sum* bins) {
    const Sum* const own = bins + static_cast<int64_t>(row) * kBins;
    return running_sums<kBinsOfThread>(kBins, room, [own](int bin) { return own[bin_place(bin)]; });
  };
  const auto sums = sums_of(x.weights);
  // What top-k keeps weighs at least below_k and at most `most`.
  Sum most = sums.running.total;
  edges.below_k = most;
  if (settings.int_params.top_k > 0) {
    const auto top_k = static_cast<Sum>(settings.int_params.top_k);
    const auto counts = sums_of(x.counts);
    if (top_k < counts.running.total) {
      const Reached k = counts.reach(top_k, room);
      edges.k_bin = edges.first = edges.last = k.index;
      edges.k_left = static_cast<int>(top_k - k.before);
      const Reached weight = sums.at(k.index, room);
      edges.below_k = weight.before;
      most = weight.through;
    }
  }
  edges.total = most;
  edges.below_edge = edges.below_k;
  if (settings.params.top_p < 1) {
    const auto edge = [&](Sum whole) { return sums.reach(top_p_target(settings.params.top_p, whole, 1, most), room); };
    const Reached first = edge(edges.below_k);
    edges.first = first.index;
    edges.below_edge = first.before;
    edges.last = edges.below_k == most ? first.index : edge(most).index;
  }
  return edges;
}

}  // namespace linattn::cuda
