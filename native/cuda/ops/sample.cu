// sample on CUDA, the same launches whatever the settings: (1) statistics of the tiles of logits; (2) greedy rows are
// done, of rows with top-k or top-p a histogram of scores tells in which bins these end; (3) the few scores in those
// bins are looked at one by one, and a token is drawn. Of few rows the last block of a row ends (2) and (3), of many a
// launch of its own does, as its shared memory would keep the others from the GPU.
#include <algorithm>
#include <bit>

#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/sample.cuh"
#include "ops/sample.h"

namespace linattn::cuda {
namespace {

// Greatest logit and whether all are below infinity, sum of e^(logit - greatest), greatest score.
template <bool kMany>
__global__ void __launch_bounds__(kSampleThreads) scan_tiles(SampleView x) {
  __shared__ float floats[kWarp];
  __shared__ Sum sums[kWarp];
  wait_for_inputs();
  const SampleRow r(x);
  if (r.first_tile == 0 && threadIdx.x == 0) {
    x.states[r.row] = {};
    x.token[r.row] = -1;
    x.logprob[r.row] = 0;
  }
  if (r.slot < 0) return;
  if (!r.greedy() && r.filtered()) {
    const int threads = static_cast<int>(blockDim.x), block = r.first_tile / x.block_tiles;
#pragma unroll 1
    for (int bin = block * threads + static_cast<int>(threadIdx.x); bin < kBinPlaces; bin += x.blocks * threads) {
      x.counts[static_cast<int64_t>(r.row) * kBinPlaces + bin] = 0;
      x.weights[static_cast<int64_t>(r.row) * kBinPlaces + bin] = 0;
    }
  }
  for (int tile = r.first_tile; tile < r.end_tile; tile++) {
    const TileLogits held = r.load(x, tile);
    float greatest = -INFINITY;
    bool wrong = false;
    r.for_logits<kMany>(held, tile, [&](int, float logit) {
      greatest = fmaxf(greatest, logit);
      wrong |= !(logit < INFINITY);
    });
    wrong = __syncthreads_or(wrong);
    greatest = block_max(greatest, floats);
    const float least = r.least_rival(greatest);
    float sum = 0;
    Sum best = 0;
    if (greatest > -INFINITY) {
      r.for_logits<kMany>(held, tile, [&](int id, float logit) {
        sum += expf(logit - greatest);
        if (logit >= least) best = max(best, best_of(r.score(id, logit), id));
      });
    }
    sum = block_sum(sum, floats);
    best = block_reduce(best, sums, [](Sum a, Sum b) { return max(a, b); });
    if (threadIdx.x == 0) {
      x.stats[static_cast<int64_t>(r.row) * x.tiles + tile] = {wrong ? NAN : greatest, sum, best};
    }
  }
}

}  // namespace

void run(const Sample& op, Cuda& cuda) {
  const int64_t rows = op.logits.shape[0], vocab = op.logits.shape[1];
  if (rows == 0) return;
  const auto threads =
      static_cast<unsigned>(std::clamp<int64_t>(ceil_div(vocab, kLogits * kWarp) * kWarp, kWarp, kSampleThreads));
  SampleView x{};
  x.logits = op.logits.as<const float>();
  x.stride = op.logits.stride0;
  x.by_fours =
      reinterpret_cast<uintptr_t>(op.logits.data) % 16 == 0 && vocab % 4 == 0 && (x.stride % 4 == 0 || rows == 1);
  x.vocab = static_cast<int>(vocab);
  x.tiles = static_cast<int>(std::max<int64_t>(ceil_div(vocab, int64_t{threads} * kLogits), 1));
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
  x.token = op.token.as<int32_t>();
  x.logprob = op.logprob.as<float>();
  // The sum of all weights, 1 at most each, stays below 2^63.
  const int bits = std::bit_width(static_cast<uint64_t>(vocab));
  x.unit = std::bit_cast<float>((127 + std::min(44, 62 - bits)) << 23);
  const auto row_count = static_cast<size_t>(rows), tile_count = row_count * static_cast<size_t>(x.tiles);
  x.stats = cuda.scratch_of<TileStats>(tile_count);
  x.sum_places = sum_place(x.tiles - 1) + 1;
  x.sums = cuda.scratch_of<Sum>(row_count * static_cast<size_t>(x.sum_places));
  x.counts = cuda.scratch_of<Sum>(row_count * kBinPlaces);
  x.weights = cuda.scratch_of<Sum>(row_count * kBinPlaces);
  x.states = cuda.scratch_of<SampleState>(row_count);
  x.list = cuda.scratch_of<Listed>(row_count * kListed);
  x.fault = cuda.fault();
  const int64_t at_once = int64_t{cuda.properties.multiprocessors} * kBlocksOfMany;
  x.block_tiles = static_cast<int>(std::clamp<int64_t>(rows * x.tiles / at_once, 1, std::min(x.tiles, kBlockTiles)));
  x.blocks = static_cast<int>(ceil_div(x.tiles, x.block_tiles));
  const dim3 grid(static_cast<unsigned>(rows * x.blocks));
  launch_early(cuda, x.block_tiles > 1 ? scan_tiles<true> : scan_tiles<false>, grid, dim3(threads), 0, x);
  find_edges(cuda, grid, dim3(threads), static_cast<unsigned>(rows), x);
  resolve_edges(cuda, grid, dim3(threads), static_cast<unsigned>(rows), x);
}

}  // namespace linattn::cuda
