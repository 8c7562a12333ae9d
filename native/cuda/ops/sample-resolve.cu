// The third kernel of sample: finds the bins of scores in which top-k and top-p end, lists their logits, and draws.
#include "cuda/device/launch.cuh"
#include "cuda/ops/sample-draw.cuh"

namespace linattn::cuda {
namespace {

// A logit below this has a score below the edges: most logits need no closer look.
__device__ float least_logit(const SampleRow& r, const RowEdges& edges, float greatest) {
  const SamplingParams& params = r.settings.params;
  const int bin = max(edges.last, edges.k_bin);
  if (bin >= kBins - 1 || (r.seen && params.repetition_penalty < 1)) return -INFINITY;
  const float reach = __uint_as_float(__float_as_uint(1.0f) + (static_cast<unsigned>(bin + 1) << 15)) - 1.0f;
  const float least = (greatest - reach - (fabsf(greatest) + reach) * 1e-5f) * params.temperature;
  return least - fabsf(least) * 1e-5f - 1e-30f;
}

// A thread's logits of a tile beside the edges: which lie there, and what weighs for the draw of those above.
struct Beside {
  Logits scores;
  unsigned at_edges = 0;  // a bit each
  Sum above = 0;

  __device__ __forceinline__ Beside(const SampleRow& r, const RowEdges& edges, const Weighing& weighing, float least,
                                    const Logits& logits, int tile) {
    float greatest = logits.at[0];
#pragma unroll
    for (int i = 1; i < kLogits; i++) greatest = fmaxf(greatest, logits.at[i]);
    if (greatest < least) return;
    scores = r.scores(logits, tile);
#pragma unroll
    for (int i = 0; i < kLogits; i++) {
      const float score = scores.at[i];
      if (score == -INFINITY) continue;
      const int bin = weighing.bin(score);
      if (edges.at(bin)) {
        at_edges |= 1u << i;
      } else if (bin < edges.first) {
        const float weight = weighing.weight(score);
        if (weight >= r.settings.params.min_p) above += weighing.fixed(weight);
      }
    }
  }

  // list[..] gets those at the edges.
  __device__ __forceinline__ void put(Listed* list, int tile) const {
    const int first = tile * kTile + static_cast<int>(threadIdx.x) * kLogits;
#pragma unroll
    for (int i = 0; i < kLogits; i++) {
      if (at_edges >> i & 1) *list++ = listed(order_of(scores.at[i]), first + i);
    }
  }
};

// How many the lanes before this one have, and all.
struct LaneCounts {
  unsigned before, total;

  __device__ __forceinline__ explicit LaneCounts(unsigned own) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    unsigned through = own;
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      const unsigned lower = __shfl_up_sync(kFullMask, through, offset);
      if (lane >= offset) through += lower;
    }
    before = through - own;
    total = __shfl_sync(kFullMask, through, kWarp - 1);
  }
};

__device__ __forceinline__ Sum sum_of_warp(Sum own) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) own += __shfl_xor_sync(kFullMask, own, offset);
  return own;
}

// Of few rows: a tile, and the last block of a row ends it.
__global__ void __launch_bounds__(kSampleThreads) resolve_tile(const __grid_constant__ SampleView x) {
  __shared__ SumRoom room;
  __shared__ Sum above_of_warps[kSampleWarps], arrived;
  __shared__ unsigned count, start;
  wait_for_inputs();
  const BlockTiles own(x);
  const int tile = own.first, position = x.positions[own.row];
  const Logits logits = x.load(own.row, tile);
  SampleState& state = x.states[own.row];
  if (!state.open) return;
  const SampleRow r(x, own.row, state.settings);
  const float greatest = state.greatest;
  const double log_total = state.log_total;
  if (threadIdx.x == 0) count = 0;
  const RowEdges edges = find_bins(x, own.row, r.settings, room);
  const Weighing weighing{greatest, x.unit};
  const Beside beside(r, edges, weighing, least_logit(r, edges, greatest), logits, tile);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  __syncthreads();
  const LaneCounts counts(static_cast<unsigned>(__popc(static_cast<int>(beside.at_edges))));
  unsigned place = 0;
  if (lane == 0 && counts.total > 0) place = atomicAdd(&count, counts.total);
  place = __shfl_sync(kFullMask, place, 0) + counts.before;
  __syncthreads();
  if (threadIdx.x == 0 && count > 0) start = atomicAdd(&state.listed, count);
  if (edges.fine()) {
#pragma unroll
    for (int i = 0; i < kLogits; i++) {
      if (!(beside.at_edges >> i & 1)) continue;
      const float score = beside.scores.at[i];
      atomicAdd(&x.fine[static_cast<int64_t>(own.row) * kBins + bin_place(weighing.fine_bin(score))],
                weighing.fixed(weighing.weight(score)));
    }
  }
  const Sum above = sum_of_warp(beside.above);
  if (lane == 0) above_of_warps[warp] = above;
  __syncthreads();
  if (count > 0 && start + count <= kListed) {
    beside.put(x.list + static_cast<int64_t>(own.row) * kListed + start + place, tile);
  }
  if (threadIdx.x == 0) {
    Sum sum = 0;
    for (int i = 0; i < kSampleWarps; i++) sum += above_of_warps[i];
    x.sums[static_cast<int64_t>(own.row) * x.tiles + tile] = sum;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) arrived = atomicAdd(&state.arrived, Sum{count} << 32 | 1) + (Sum{count} << 32 | 1);
  __syncthreads();
  if (static_cast<unsigned>(arrived) < static_cast<unsigned>(x.blocks)) return;
  __threadfence();
  const RowEnd end{x, r, edges, greatest, log_total, position, static_cast<int>(arrived >> 32), room};
  if (!end_fine(end)) end_any(RowEnd(end));
}

// Of many rows: a block has several tiles, whose sums its warps add up without waiting for each other. A warp has its
// place in the list of the row, if that has room.
__global__ void __launch_bounds__(kSampleThreads) resolve_tiles(const __grid_constant__ SampleView x) {
  __shared__ Sum above_of_tiles[kBlockTiles];
  wait_for_inputs();
  const BlockTiles own(x);
  SampleState& state = x.states[own.row];
  if (!state.open) return;
  for (int i = static_cast<int>(threadIdx.x); i < kBlockTiles; i += kSampleThreads) above_of_tiles[i] = 0;
  __syncthreads();
  const RowEdges edges = state.edges;
  const SampleRow r(x, own.row, state.settings);
  const Weighing weighing{state.greatest, x.unit};
  const float least = least_logit(r, edges, weighing.greatest);
  Listed* const row_list = x.list + static_cast<int64_t>(own.row) * kListed;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Logits next = x.load(own.row, own.first);
  for (int tile = own.first; tile < own.end; tile++) {
    const Logits logits = next;
    if (tile + 1 < own.end) next = x.load(own.row, tile + 1);
    const Beside beside(r, edges, weighing, least, logits, tile);
    const Sum above = sum_of_warp(beside.above);
    if (lane == 0) atomicAdd(&above_of_tiles[tile - own.first], above);
    const LaneCounts counts(static_cast<unsigned>(__popc(static_cast<int>(beside.at_edges))));
    if (counts.total == 0) continue;
    unsigned start = 0;
    if (lane == 0) start = atomicAdd(&state.listed, counts.total);
    start = __shfl_sync(kFullMask, start, 0);
    if (start + counts.total <= kListed) beside.put(row_list + start + counts.before, tile);
  }
  __syncthreads();
  Sum* const sums = x.sums + static_cast<int64_t>(own.row) * x.tiles + own.first;
  for (int i = static_cast<int>(threadIdx.x); i < own.end - own.first; i += kSampleThreads) sums[i] = above_of_tiles[i];
}

// A block a row.
__global__ void __launch_bounds__(kSampleThreads) end_rows(const __grid_constant__ SampleView x) {
  __shared__ SumRoom room;
  wait_for_inputs();
  const auto row = static_cast<int>(blockIdx.x);
  const SampleState& state = x.states[row];
  if (!state.open) return;
  const SampleRow r(x, row, state.settings);
  const RowEdges edges = state.edges;
  end_any({x, r, edges, state.greatest, state.log_total, x.positions[row], static_cast<int>(state.listed), room});
}

}  // namespace

void resolve_edges(Cuda& cuda, unsigned rows, const SampleView& x) {
  const dim3 blocks(rows, static_cast<unsigned>(x.blocks));
  if (x.block_tiles == 1) return launch_early(cuda, resolve_tile, blocks, kSampleThreads, kEndBytes, x);
  launch_early(cuda, resolve_tiles, blocks, kSampleThreads, 0, x);
  launch_early(cuda, end_rows, rows, kSampleThreads, kEndBytes, x);
}

}  // namespace linattn::cuda
