// The second kernel of sample: ends greedy rows, and makes a histogram of the scores of those with top-k or top-p. Of
// many rows a launch of its own finds then in which bins the filters end.
#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/sample-sums.cuh"

namespace linattn::cuda {
namespace {

// The greatest of `best` of the tiles.
__device__ __forceinline__ Sum best_of_tiles(const SampleView& x, const TileStats* stats, Sum* of_warps) {
  Sum best = 0;
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += kSampleThreads) best = max(best, stats[t].best);
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) best = max(best, __shfl_xor_sync(kFullMask, best, offset));
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = best;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSampleWarps; i++) best = max(best, of_warps[i]);
  return best;
}

// log of the sum of e^logit.
__device__ __forceinline__ double log_total_of(const SampleView& x, const TileStats* stats) {
  __shared__ float greatest_shared[kWarp];
  __shared__ double sum_shared[kWarp];
  float greatest = -INFINITY;
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += kSampleThreads) {
    greatest = fmaxf(greatest, stats[t].greatest);
  }
  greatest = block_max(greatest, greatest_shared);
  double sum = 0;
#pragma unroll 1
  for (int t = static_cast<int>(threadIdx.x); t < x.tiles; t += kSampleThreads) {
    sum += static_cast<double>(stats[t].sum) * static_cast<double>(expf(stats[t].greatest - greatest));
  }
  return static_cast<double>(greatest) + log(block_total(sum, sum_shared));
}

// What a row needs once: greedy its token, else what the third kernel goes by.
__device__ __forceinline__ void end_tiles(const SampleView& x, int row, const TileStats* stats, Sum best) {
  if (best == 0 || best == kWrong) {
    if (threadIdx.x == 0) {
      report(x.fault, best == 0 ? FaultKind::kNoToken : FaultKind::kInvalid, FaultName::kLogits, row);
    }
    return;
  }
  const double log_total = log_total_of(x, stats);
  if (threadIdx.x != 0) return;
  SampleState& state = x.states[row];
  if (state.settings.greedy()) {
    const auto token = static_cast<int>(~static_cast<uint32_t>(best));
    x.token[row] = token;
    x.logprob[row] = static_cast<float>(static_cast<double>(x.logits[row * x.stride + token]) - log_total);
  } else {
    state.greatest = score_of(static_cast<uint32_t>(best >> 32));
    state.log_total = log_total;
    state.open = 1;
  }
}

// The sums of a block's tiles by bin, at bin_place().
struct BlockBins {
  unsigned counts[kBins];            // where top-k asks for them
  unsigned low[kBins], high[kBins];  // of the weights: 64-bit atomics of shared memory are loops

  __device__ __forceinline__ void clear() {
    for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kSampleThreads) counts[i] = low[i] = high[i] = 0;
  }
  __device__ __forceinline__ void add(int place, Sum weight, bool counted) {
    if (counted) atomicAdd(&counts[place], 1u);
    if (weight == 0) return;
    const auto part = static_cast<unsigned>(weight);
    const unsigned carry = atomicAdd(&low[place], part) > ~part ? 1 : 0;
    const unsigned rest = static_cast<unsigned>(weight >> 32) + carry;
    if (rest != 0) atomicAdd(&high[place], rest);
  }
  __device__ __forceinline__ void put(const SampleView& x, int row, bool counted) const {
    const int64_t first = static_cast<int64_t>(row) * kBins;
#pragma unroll
    for (int u = 0; u < kBinsOfThread; u++) {
      const int i = u * kSampleThreads + static_cast<int>(threadIdx.x);
      const Sum weight = Sum{high[i]} << 32 | low[i];
      if (weight != 0) atomicAdd(&x.weights[first + i], weight);
      if (counted && counts[i] != 0) atomicAdd(&x.counts[first + i], Sum{counts[i]});
    }
  }
};

// One block more than a row has: that one is for what the row needs once.
__global__ void __launch_bounds__(kSampleThreads) bin_tiles(const __grid_constant__ SampleView x) {
  __shared__ BlockBins bins;
  __shared__ Sum of_warps[kSampleWarps];
  bins.clear();
  wait_for_inputs();
  const BlockTiles own(x);
  const bool bins_tiles = own.block < x.blocks;
  Logits next{};
  if (bins_tiles) next = x.load(own.row, own.first);
  const RowSettings settings = x.states[own.row].settings;
  if (settings.slot < 0 || (bins_tiles && (settings.greedy() || !settings.filtered()))) return;
  const TileStats* stats = x.stats + static_cast<int64_t>(own.row) * x.tiles;
  const Sum best = best_of_tiles(x, stats, of_warps);
  if (!bins_tiles) return end_tiles(x, own.row, stats, best);
  if (best == 0 || best == kWrong) return;
  const Weighing weighing{score_of(static_cast<uint32_t>(best >> 32)), x.unit};
  const SampleRow r(x, own.row, settings);
  const bool counted = settings.int_params.top_k > 0;
  for (int tile = own.first; tile < own.end; tile++) {
    const Logits scores = r.scores(next, tile);
    if (tile + 1 < own.end) next = x.load(own.row, tile + 1);
#pragma unroll
    for (int i = 0; i < kLogits; i++) {
      const float score = scores.at[i];
      if (score == -INFINITY) continue;
      bins.add(bin_place(weighing.bin(score)), weighing.fixed(weighing.weight(score)), counted);
    }
  }
  __syncthreads();
  bins.put(x, own.row, counted);
}

// A block a row.
__global__ void __launch_bounds__(kSampleThreads) find_bins_of_rows(const __grid_constant__ SampleView x) {
  __shared__ SumRoom room;
  wait_for_inputs();
  const auto row = static_cast<int>(blockIdx.x);
  SampleState& state = x.states[row];
  if (!state.open) return;
  const RowEdges edges = find_bins(x, row, state.settings, room);
  if (threadIdx.x == 0) state.edges = edges;
}

}  // namespace

void find_edges(Cuda& cuda, unsigned rows, const SampleView& x) {
  launch_early(cuda, bin_tiles, dim3(rows, static_cast<unsigned>(x.blocks + 1)), kSampleThreads, 0, x);
  if (x.block_tiles > 1) launch_early(cuda, find_bins_of_rows, rows, kSampleThreads, 0, x);
}

}  // namespace linattn::cuda
