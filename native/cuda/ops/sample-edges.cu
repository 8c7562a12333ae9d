// The second kernel of sample: ends greedy rows, and finds for those with top-k or top-p the bins of scores in which
// these end.
#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/sample-sums.cuh"

namespace linattn::cuda {
namespace {

struct Merged {
  Sum best;
  bool wrong;
};

__device__ __forceinline__ Merged merge_tiles(Sum* shared, const SampleView& x, const TileStats* stats) {
  Merged all{0, false};
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += static_cast<int>(blockDim.x)) {
    all.best = max(all.best, stats[t].best);
    all.wrong |= isnan(stats[t].greatest);
  }
  all.wrong = __syncthreads_or(all.wrong);
  all.best = block_reduce(all.best, shared, [](Sum a, Sum b) { return max(a, b); });
  return all;
}

// log of the sum of e^logit.
__device__ __forceinline__ double log_total_of(const SampleView& x, const TileStats* stats) {
  __shared__ float greatest_shared[kWarp];
  __shared__ double sum_shared[kWarp];
  const int threads = static_cast<int>(blockDim.x);
  float greatest = -INFINITY;
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += threads) greatest = fmaxf(greatest, stats[t].greatest);
  greatest = block_max(greatest, greatest_shared);
  double sum = 0;
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += threads) {
    sum += static_cast<double>(stats[t].sum) * static_cast<double>(expf(stats[t].greatest - greatest));
  }
  return static_cast<double>(greatest) + log(block_total(sum, sum_shared));
}

// The sums of a block's tiles by bin.
struct BlockBins {
  unsigned counts[kBins];            // where top-k asks for them
  unsigned low[kBins], high[kBins];  // of the weights: 64-bit atomics of shared memory are loops
};

// They give way to the sums of all blocks.
union BinRoom {
  BlockBins of_block;
  Sum running[kBinPlaces];
};

__device__ __forceinline__ void add_to(BlockBins& bins, int bin, Sum weight, bool counted) {
  if (counted) atomicAdd(&bins.counts[bin], 1u);
  if (weight == 0) return;
  const auto low = static_cast<unsigned>(weight);
  const unsigned carry = atomicAdd(&bins.low[bin], low) > ~low ? 1 : 0;
  const unsigned high = static_cast<unsigned>(weight >> 32) + carry;
  if (high != 0) atomicAdd(&bins.high[bin], high);
}

// When all bins of a row are summed. `running`: kBins sums.
__device__ __forceinline__ void find_bins(const SampleView& x, const SampleRow& r, SampleState& state, Sum* running,
                                          Sum* shared) {
  const auto take = [&](const Sum* sums) {
    gather(sums + static_cast<int64_t>(r.row) * kBinPlaces, kBinPlaces, running);
    running_sums(running, kBins, shared);
  };
  int end_bin = kBins, k_bin = -1;
  Sum before_k = 0;
  const auto top_k = static_cast<Sum>(max(r.int_params.top_k, 0));
  if (top_k > 0) {
    take(x.counts);
    if (top_k < running[sum_place(kBins - 1)]) {
      k_bin = first_reaching(running, kBins, top_k);
      before_k = sum_before(running, k_bin);
      end_bin = k_bin + 1;
    }
    __syncthreads();
  }
  take(x.weights);
  // What top-k keeps weighs at least `least` and at most `most`.
  const Sum most = running[sum_place(end_bin - 1)], least = k_bin < 0 ? most : sum_before(running, k_bin);
  int first_edge = k_bin, last_edge = k_bin;
  if (r.params.top_p < 1) {
    const auto edge = [&](Sum whole) {
      return first_reaching(running, end_bin, top_p_target(r.params.top_p, whole, 1, most));
    };
    first_edge = edge(least);
    last_edge = least == most ? first_edge : edge(most);
  } else if (k_bin < 0) {
    first_edge = last_edge = kBins;
  }
  if (threadIdx.x != 0) return;
  state.open = 1;
  state.first_edge = first_edge;
  state.last_edge = last_edge;
  state.k_bin = k_bin;
  state.k_left = static_cast<int>(top_k - before_k);
  state.below_edge = first_edge < kBins ? sum_before(running, first_edge) : most;
  state.below_k = least;
  state.total = most;
}

template <bool kMany>
__global__ void __launch_bounds__(kSampleThreads) bin_tiles(SampleView x) {
  __shared__ Sum shared[kWarp];
  __shared__ BinRoom room;
  BlockBins& bins = room.of_block;
  wait_for_inputs();
  const SampleRow r(x);
  if (r.slot < 0) return;
  const TileStats* stats = x.stats + static_cast<int64_t>(r.row) * x.tiles;
  SampleState& state = x.states[r.row];
  const Merged all = merge_tiles(shared, x, stats);
  if (all.wrong || all.best == 0) {
    if (r.first_tile == 0 && threadIdx.x == 0) {
      report(x.fault, all.wrong ? FaultKind::kInvalid : FaultKind::kNoToken, FaultName::kLogits, r.row);
    }
    return;
  }
  const float greatest = score_of(static_cast<uint32_t>(all.best >> 32));
  const bool filtered = !r.greedy() && r.filtered();
  if (filtered) {
    const Weighing weighing{greatest, x.unit};
    const int threads = static_cast<int>(blockDim.x);
    const bool counted = r.int_params.top_k > 0;
#pragma unroll 1
    for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += threads) {
      bins.counts[bin] = bins.low[bin] = bins.high[bin] = 0;
    }
    __syncthreads();
    for (int tile = r.first_tile; tile < r.end_tile; tile++) {
      r.for_logits<kMany>(r.load(x, tile), tile, [&](int id, float logit) {
        const float score = r.score(id, logit);
        if (score == -INFINITY) return;
        add_to(bins, weighing.bin(score), weighing.fixed(weighing.weight(score)), counted);
      });
    }
    __syncthreads();
#pragma unroll 1
    for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += threads) {
      const int64_t at = static_cast<int64_t>(r.row) * kBinPlaces + sum_place(bin);
      if (bins.counts[bin] != 0) atomicAdd(&x.counts[at], Sum{bins.counts[bin]});
      const Sum weight = Sum{bins.high[bin]} << 32 | bins.low[bin];
      if (weight != 0) atomicAdd(&x.weights[at], weight);
    }
    if constexpr (kMany) {
      if (r.first_tile == 0 && threadIdx.x == 0) state.arrived[0] = 1;
    } else if (last_of_row(&state.arrived[0], x.blocks)) {
      find_bins(x, r, state, room.running, shared);
    }
  }
  // After the bins: the last block waits for these of all.
  if (r.first_tile != 0) return;
  const double log_total = log_total_of(x, stats);
  if (threadIdx.x != 0) return;
  state.log_total = log_total;
  state.greatest = greatest;
  if (r.greedy()) {
    const auto token = static_cast<int>(~static_cast<uint32_t>(all.best));
    x.token[r.row] = token;
    x.logprob[r.row] = static_cast<float>(static_cast<double>(r.logits[token]) - log_total);
  } else if (!filtered) {
    state.first_edge = state.last_edge = kBins;
    state.k_bin = -1;
    state.open = 1;
  }
}

// A block a row.
__global__ void __launch_bounds__(kSampleThreads) end_binned_rows(SampleView x) {
  __shared__ Sum shared[kWarp], running[kBinPlaces];
  wait_for_inputs();
  const auto row = static_cast<int>(blockIdx.x);
  SampleState& state = x.states[row];
  if (state.arrived[0] == 0) return;  // without filters, greedy or wrong
  find_bins(x, SampleRow(x, row, 0, x.tiles), state, running, shared);
}

}  // namespace

void find_edges(Cuda& cuda, dim3 grid, dim3 threads, unsigned rows, const SampleView& x) {
  if (x.block_tiles == 1) return launch_early(cuda, bin_tiles<false>, grid, threads, 0, x);
  launch_early(cuda, bin_tiles<true>, grid, threads, 0, x);
  launch_early(cuda, end_binned_rows, rows, threads, 0, x);
}

}  // namespace linattn::cuda
