// sample on CUDA, the same launches whatever the settings: (1) statistics of the tiles of logits; (2) greedy rows are
// done, of rows with top-k or top-p there is a histogram of scores; (3) its sums tell in which bins these end, the few
// scores in there are looked at one by one, and a token is drawn. Of few rows every block of (3) reads the histogram
// and the last one of a row draws; of many, whose blocks have several tiles, launches of their own do both.
#include <algorithm>
#include <bit>

#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/sample.cuh"
#include "ops/sample.h"

namespace linattn::cuda {
namespace {

__device__ __forceinline__ RowSettings settings_of(const SampleView& x, const BlockTiles& own) {
  RowSettings settings{};
  settings.slot = x.rows[own.row];
  if (settings.slot < -1 || settings.slot >= x.slots) {
    if (own.first == 0 && threadIdx.x == 0) {
      report(x.fault, FaultKind::kFromTo, FaultName::kRows, own.row, settings.slot, -1, x.slots - 1);
    }
    settings.slot = -1;
  }
  if (settings.slot < 0) return settings;
  settings.params = *reinterpret_cast<const SamplingParams*>(x.params + settings.slot * x.params_stride);
  settings.int_params = *reinterpret_cast<const SamplingIntParams*>(x.int_params + settings.slot * x.int_params_stride);
  return settings;
}

__device__ __forceinline__ void clear_bins(const SampleView& x, const BlockTiles& own) {
  const int64_t row_bins = static_cast<int64_t>(own.row) * kBins;
#pragma unroll 1
  for (int bin = own.block * kSampleThreads + static_cast<int>(threadIdx.x); bin < kBins;
       bin += x.blocks * kSampleThreads) {
    x.counts[row_bins + bin] = x.weights[row_bins + bin] = 0;
    if (x.fine) x.fine[row_bins + bin] = 0;
  }
}

// Greatest logit and whether all are below infinity, sum of e^(logit - greatest), greatest score.
__global__ void __launch_bounds__(kSampleThreads) scan_tiles(const __grid_constant__ SampleView x) {
  __shared__ float greatest_of_warps[kSampleWarps], sum_of_warps[kSampleWarps];
  __shared__ Sum best_of_warps[kSampleWarps];
  wait_for_inputs();
  const BlockTiles own(x);
  Logits next = x.load(own.row, own.first);
  const RowSettings settings = settings_of(x, own);
  if (own.block == 0 && threadIdx.x == 0) {
    SampleState state{};
    state.settings = settings;
    x.states[own.row] = state;
    x.token[own.row] = -1;
    x.logprob[own.row] = 0;
  }
  if (settings.slot < 0) return;
  if (!settings.greedy() && settings.filtered()) clear_bins(x, own);
  const SampleRow r(x, own.row, settings);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int tile = own.first; tile < own.end; tile++) {
    const Logits logits = next;
    if (tile + 1 < own.end) next = x.load(own.row, tile + 1);
    float thread_greatest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kLogits; i++) {
      thread_greatest = fmaxf(thread_greatest, logits.at[i] < INFINITY ? logits.at[i] : INFINITY);
    }
    const float warp_greatest = warp_max(thread_greatest);
    if (lane == 0) greatest_of_warps[warp] = warp_greatest;
    __syncthreads();
    float greatest = greatest_of_warps[0];
#pragma unroll
    for (int i = 1; i < kSampleWarps; i++) greatest = fmaxf(greatest, greatest_of_warps[i]);
    float sum = 0;
    Sum best = 0;
    if (greatest > -INFINITY && greatest < INFINITY) {
#pragma unroll
      for (int i = 0; i < kLogits; i++) sum += expf(logits.at[i] - greatest);
      const float least = r.least_rival(greatest);
      if (thread_greatest >= least) {
        const Logits scores = r.scores(logits, tile);
        const int first = tile * kTile + static_cast<int>(threadIdx.x) * kLogits;
#pragma unroll
        for (int i = 0; i < kLogits; i++) {
          if (logits.at[i] >= least) best = max(best, best_of(scores.at[i], first + i));
        }
      }
    }
    sum = warp_sum(sum);
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) best = max(best, __shfl_xor_sync(kFullMask, best, offset));
    if (lane == 0) {
      sum_of_warps[warp] = sum;
      best_of_warps[warp] = best;
    }
    __syncthreads();
    if (warp > 0) continue;
    sum = warp_sum(lane < kSampleWarps ? sum_of_warps[lane] : 0.0f);
    if (lane > 0) continue;
#pragma unroll
    for (int i = 1; i < kSampleWarps; i++) best = max(best, best_of_warps[i]);
    if (greatest == INFINITY) best = kWrong;
    x.stats[static_cast<int64_t>(own.row) * x.tiles + tile] = {greatest, sum, best};
  }
}

}  // namespace

void run(const Sample& op, Cuda& cuda) {
  const int64_t rows = op.logits.shape[0], vocab = op.logits.shape[1];
  if (rows == 0) return;
  SampleView x{};
  x.logits = op.logits.as<const float>();
  x.stride = op.logits.stride0;
  x.by_fours =
      reinterpret_cast<uintptr_t>(op.logits.data) % 16 == 0 && vocab % 4 == 0 && (x.stride % 4 == 0 || rows == 1);
  x.vocab = static_cast<int>(vocab);
  x.tiles = static_cast<int>(std::max<int64_t>(ceil_div(vocab, kTile), 1));
  x.slots = static_cast<int>(op.params.shape[0]);
  x.rows = op.rows.as<const int32_t>();
  x.positions = op.positions.as<const int32_t>();
  x.params = op.params.as<const float>();
  x.params_stride = op.params.stride0;
  x.int_params = op.int_params.as<const int32_t>();
  x.int_params_stride = op.int_params.stride0;
  x.seen = op.seen.as<const uint32_t>();
  x.seen_stride = op.seen.stride0;
  x.allowed = op.allowed.as<const uint32_t>();
  x.allowed_stride = op.allowed.stride0;
  x.token = op.token();
  x.logprob = op.logprob();
  // The sum of all weights, 1 at most each, stays below 2^63.
  const int bits = std::bit_width(static_cast<uint64_t>(vocab));
  x.unit = std::bit_cast<float>((127 + std::min(44, 62 - bits)) << 23);
  const auto row_count = static_cast<size_t>(rows), tile_count = row_count * static_cast<size_t>(x.tiles);
  const int64_t at_once = int64_t{cuda.properties.multiprocessors} * kBlocksOfMany;
  x.block_tiles = static_cast<int>(std::clamp<int64_t>(rows * x.tiles / at_once, 1, std::min(x.tiles, kBlockTiles)));
  x.blocks = static_cast<int>(ceil_div(x.tiles, x.block_tiles));
  x.stats = cuda.scratch_of<TileStats>(tile_count);
  x.sums = cuda.scratch_of<Sum>(tile_count);
  x.counts = cuda.scratch_of<Sum>(row_count * kBins);
  x.weights = cuda.scratch_of<Sum>(row_count * kBins);
  if (x.block_tiles == 1) x.fine = cuda.scratch_of<Sum>(row_count * kBins);
  x.states = cuda.scratch_of<SampleState>(row_count);
  x.list = cuda.scratch_of<Listed>(row_count * kListed);
  x.fault = cuda.fault();
  const dim3 blocks(static_cast<unsigned>(rows), static_cast<unsigned>(x.blocks));
  launch_early(cuda, scan_tiles, blocks, kSampleThreads, 0, x);
  find_edges(cuda, static_cast<unsigned>(rows), x);
  resolve_edges(cuda, static_cast<unsigned>(rows), x);
}

}  // namespace linattn::cuda
