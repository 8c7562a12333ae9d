// The second kernel of sample: ends every row that top-k and top-p leave alone, and finds for the others the bins of
// scores in which the filters end.
#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/sample.cuh"

namespace linattn::cuda {
namespace {

struct Merged {
  Sum best;
  bool wrong;
};

__device__ Merged merge_tiles(Finder& finder, const SampleView& x, const TileStats* stats) {
  Merged all{0, false};
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += static_cast<int>(blockDim.x)) {
    all.best = max(all.best, stats[t].best);
    all.wrong |= isnan(stats[t].greatest);
  }
  all.wrong = __syncthreads_or(all.wrong);
  all.best = block_reduce(all.best, finder.shared, [](Sum a, Sum b) { return max(a, b); });
  return all;
}

// log of the sum of e^logit.
__device__ double log_total_of(const SampleView& x, const TileStats* stats) {
  __shared__ float greatest_shared[kWarp];
  __shared__ double sum_shared[kWarp];
  const int threads = static_cast<int>(blockDim.x);
  float greatest = -INFINITY;
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += threads) greatest = fmaxf(greatest, stats[t].greatest);
  greatest = block_max(greatest, greatest_shared);
  double sum = 0;
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

__device__ __forceinline__ void add_to(BlockBins& bins, int bin, Sum weight, bool counted) {
  if (counted) atomicAdd(&bins.counts[bin], 1u);
  if (weight == 0) return;
  const auto low = static_cast<unsigned>(weight);
  const unsigned carry = atomicAdd(&bins.low[bin], low) > ~low ? 1 : 0;
  const unsigned high = static_cast<unsigned>(weight >> 32) + carry;
  if (high != 0) atomicAdd(&bins.high[bin], high);
}

// When all bins of a row are summed; `bins` becomes their sums.
__device__ void find_bins(Finder& finder, const SampleView& x, const SampleRow& r, SampleState& state,
                          BlockBins& bins) {
  gather(x.counts + static_cast<int64_t>(r.row) * kBins, kBins, [&](int bin, unsigned sum) { bins.counts[bin] = sum; });
  gather(x.weights + static_cast<int64_t>(r.row) * kBins, kBins, [&](int bin, Sum sum) {
    bins.low[bin] = static_cast<unsigned>(sum);
    bins.high[bin] = static_cast<unsigned>(sum >> 32);
  });
  const auto weight_of = [&](int bin) { return Sum{bins.high[bin]} << 32 | bins.low[bin]; };
  const auto sum_of = [&](auto value) {
    Sum sum = 0;
    for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += static_cast<int>(blockDim.x)) sum += value(bin);
    return block_total(sum, finder.shared);
  };
  int end_bin = kBins, k_bin = -1;
  Sum before_k = 0;
  const auto top_k = static_cast<Sum>(max(r.int_params.top_k, 0));
  if (top_k > 0 && top_k < sum_of([&](int bin) { return Sum{bins.counts[bin]}; })) {
    k_bin = find_reaching(finder, kBins, top_k, before_k, [&](int bin) { return Sum{bins.counts[bin]}; });
    end_bin = k_bin + 1;
  }
  // What top-k keeps weighs at least `least` and at most `most`.
  const Sum most = sum_of([&](int bin) { return bin < end_bin ? weight_of(bin) : 0; });
  const Sum least = k_bin < 0 ? most : sum_of([&](int bin) { return bin < k_bin ? weight_of(bin) : 0; });
  int first_edge = k_bin, last_edge = k_bin;
  Sum before_first = least, before_last = 0;
  if (r.params.top_p < 1) {
    const auto weight = [&](int bin) { return bin < end_bin ? weight_of(bin) : 0; };
    before_first = 0;
    first_edge = find_reaching(finder, kBins, top_p_target(r.params.top_p, least), before_first, weight);
    last_edge = first_edge;
    if (least != most) {
      last_edge = find_reaching(finder, kBins, top_p_target(r.params.top_p, most), before_last, weight);
    }
  }
  if (threadIdx.x != 0) return;
  state.open = first_edge >= 0;
  state.first_edge = first_edge;
  state.last_edge = last_edge;
  state.k_bin = k_bin;
  state.k_left = static_cast<int>(top_k - before_k);
  state.below_edge = before_first;
  state.below_k = least;
  state.total = most;
}

// When all blocks of a row have come through: finds its edges, or draws where no filter asks for any.
__device__ void end_binned(Finder& finder, const SampleView& x, const SampleRow& r, const Weighing& weighing,
                           SampleState& state, BlockBins& bins) {
  __shared__ int open;
  if (threadIdx.x == 0) open = 0;
  if (r.filtered()) {
    find_bins(finder, x, r, state, bins);
    if (threadIdx.x == 0) open = state.open;
  }
  __syncthreads();
  if (open) return;
  const double log_total = *static_cast<const volatile double*>(&state.log_total);
  draw(finder, x, r, log_total, dynamic_shared<Sum>(), [&](int id, float logit) -> Sum {
    const float score = r.score(id, logit), weight = weighing.weight(score);
    return score > -INFINITY && weight >= r.params.min_p ? weighing.fixed(weight) : 0;
  });
}

template <bool kMany>
__global__ void __launch_bounds__(kSampleThreads) merge_and_bin(SampleView x) {
  __shared__ Finder finder;
  __shared__ BlockBins bins;
  __shared__ TileSums<kMany> tile_sums;
  wait_for_inputs();
  const SampleRow r(x);
  if (r.slot < 0) return;
  const TileStats* stats = x.stats + static_cast<int64_t>(r.row) * x.tiles;
  SampleState& state = x.states[r.row];
  const Merged all = merge_tiles(finder, x, stats);
  if (all.wrong || all.best == 0) {
    if (r.first_tile == 0 && threadIdx.x == 0) {
      report(x.fault, all.wrong ? FaultKind::kInvalid : FaultKind::kNoToken, FaultName::kLogits, r.row);
    }
    return;
  }
  const Weighing weighing{score_of(static_cast<uint32_t>(all.best >> 32)), x.unit};
  if (r.first_tile == 0) {
    const double log_total = log_total_of(x, stats);
    if (threadIdx.x == 0) {
      state.log_total = log_total;
      state.greatest = weighing.greatest;
      if (r.greedy()) {
        const auto token = static_cast<int>(~static_cast<uint32_t>(all.best));
        x.token[r.row] = token;
        x.logprob[r.row] = static_cast<float>(static_cast<double>(r.logits[token]) - log_total);
      }
    }
  }
  if (r.greedy()) return;

  const int threads = static_cast<int>(blockDim.x);
  const bool filtered = r.filtered(), counted = r.int_params.top_k > 0;
  for (int bin = static_cast<int>(threadIdx.x); filtered && bin < kBins; bin += threads) {
    bins.counts[bin] = bins.low[bin] = bins.high[bin] = 0;
  }
  tile_sums.clear();
  __syncthreads();
  Sum* const sums = x.sums + static_cast<int64_t>(r.row) * x.tiles;
  for (int tile = r.first_tile; tile < r.end_tile; tile++) {
    Sum kept = 0;
    r.for_logits<kMany>(r.load(x, tile), tile, [&](int id, float logit) {
      const float score = r.score(id, logit);
      if (score == -INFINITY) return;
      const float weight = weighing.weight(score);
      const Sum fixed = weighing.fixed(weight);
      if (weight >= r.params.min_p) kept += fixed;
      if (filtered) add_to(bins, weighing.bin(score), fixed, counted);
    });
    tile_sums.add(r, tile, kept, sums);
  }
  tile_sums.put(r, sums);
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); filtered && bin < kBins; bin += threads) {
    if (bins.counts[bin] != 0) atomicAdd(&x.counts[static_cast<int64_t>(r.row) * kBins + bin], bins.counts[bin]);
    const Sum weight = Sum{bins.high[bin]} << 32 | bins.low[bin];
    if (weight != 0) atomicAdd(&x.weights[static_cast<int64_t>(r.row) * kBins + bin], weight);
  }
  if constexpr (kMany) {
    if (threadIdx.x == 0) atomicAdd(&state.arrived[0], 1u);
  } else if (last_of_row(finder, &state.arrived[0], x.blocks)) {
    end_binned(finder, x, r, weighing, state, bins);
  }
}

// A block a row.
__global__ void __launch_bounds__(kSampleThreads) end_binned_rows(SampleView x) {
  __shared__ Finder finder;
  __shared__ BlockBins bins;
  wait_for_inputs();
  const auto row = static_cast<int>(blockIdx.x);
  SampleState& state = x.states[row];
  if (state.arrived[0] == 0) return;  // greedy or wrong
  const SampleRow r(x, row, 0, x.tiles);
  end_binned(finder, x, r, Weighing{state.greatest, x.unit}, state, bins);
}

}  // namespace

void find_edges(Cuda& cuda, dim3 grid, dim3 threads, unsigned rows, const SampleView& x) {
  constexpr size_t kRoom = kTilePlaces * sizeof(Sum);
  if (x.block_tiles == 1) return launch_early(cuda, merge_and_bin<false>, grid, threads, kRoom, x);
  launch_early(cuda, merge_and_bin<true>, grid, threads, 0, x);
  launch_early(cuda, end_binned_rows, rows, threads, kRoom, x);
}

}  // namespace linattn::cuda
