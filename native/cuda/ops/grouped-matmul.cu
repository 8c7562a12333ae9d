// Products of rows with the weights of the experts that each of them chose. One block sorts the pairs of row and expert
// by expert; then a block takes up to kRows pairs of one expert and some of its outputs, a warp four outputs at a time,
// so that an expert's weights are read once for so many rows.
#include "cuda/device/elementwise.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/weight-layout.h"
#include "ops/grouped-matmul.h"

namespace linattn::cuda {
namespace {

constexpr int kSortThreads = 512, kWarps = 8, kThreads = kWarps * kWarp, kOutputs = 4;

__device__ __forceinline__ float as_float(int8_t x) { return static_cast<float>(x); }
using linattn::cuda::as_float;

// begins [experts + 1]: the sorted pairs of an expert; tiles [experts + 1]: its tiles; order [pairs]: sorted pairs.
struct Groups {
  const int32_t* ids;
  int64_t ids_stride;
  int pairs, per_row, experts, tile_rows;
  int *begins, *tiles, *order;
};

__global__ void __launch_bounds__(kSortThreads) sort_pairs(Groups g, Fault* fault) {
  int* const counts = dynamic_shared<int>();  // [experts]
  wait_for_inputs();
  const auto id_of = [&](int pair) { return g.ids[pair / g.per_row * g.ids_stride + pair % g.per_row]; };
  for (int e = threadIdx.x; e < g.experts; e += kSortThreads) counts[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < g.pairs; i += kSortThreads) {
    const int id = id_of(i);
    if (id >= 0 && id < g.experts) {
      atomicAdd(&counts[id], 1);
    } else {
      report(fault, FaultKind::kRange, FaultName::kIds, i, id, 0, g.experts);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int begin = 0, tile = 0;
    for (int e = 0; e < g.experts; e++) {
      const int count = counts[e];
      g.begins[e] = begin;
      g.tiles[e] = tile;
      counts[e] = begin;
      begin += count;
      tile += (count + g.tile_rows - 1) / g.tile_rows;
    }
    g.begins[g.experts] = begin;
    g.tiles[g.experts] = tile;
  }
  __syncthreads();
  // In which order an expert's pairs come changes no sum.
  for (int i = threadIdx.x; i < g.pairs; i += kSortThreads) {
    const int id = id_of(i);
    if (id >= 0 && id < g.experts) g.order[atomicAdd(&counts[id], 1)] = i;
  }
}

template <class X, class W>
struct GroupedProduct {
  Groups groups;
  StridedRows<const X> x;
  StridedRows<X> out;
  const W* weights;
  const float* scales;  // may be null
  WeightLayout layout;
  int share;  // pairs that read one row of x
  int64_t outputs;
};

template <class X, class W, int kRows>
__global__ void __launch_bounds__(kThreads) multiply_groups(const __grid_constant__ GroupedProduct<X, W> p) {
  const Groups& g = p.groups;
  const int tile = static_cast<int>(blockIdx.y), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  wait_for_inputs();
  let_next_begin();
  if (tile >= g.tiles[g.experts]) return;
  int e = 0;  // the last expert whose tiles begin at or before this one
  for (int high = g.experts; high - e > 1;) {
    const int middle = (e + high) / 2;
    if (g.tiles[middle] <= tile) {
      e = middle;
    } else {
      high = middle;
    }
  }
  const int first = g.begins[e] + (tile - g.tiles[e]) * kRows, rows = min(kRows, g.begins[e + 1] - first);
  int pairs[kRows];
#pragma unroll
  for (int r = 0; r < kRows; r++) pairs[r] = g.order[first + min(r, rows - 1)];
  const int64_t n0 = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * kOutputs, depth = p.layout.depth;
  if (n0 >= p.outputs) return;
  const int64_t row0 = e * p.outputs + n0;  // of the stacked weight
  const W* const weights = p.weights + row0 * p.layout.padded_depth;
  const bool by_group = p.scales && p.layout.groups > 1;
  float sums[kRows][kOutputs] = {};
  for (int64_t k = lane; k < depth; k += kWarp) {
    float values[kOutputs];
#pragma unroll
    for (int i = 0; i < kOutputs; i++) {
      values[i] = as_float(weights[i * p.layout.padded_depth + k]);
      if (by_group) values[i] *= p.scales[p.layout.scale_index(row0 + i, k / p.layout.group)];
    }
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      float input = as_float(*p.x.at(pairs[r] / p.share, k));
      if constexpr (std::is_same_v<W, bfloat16>) input = as_float(from_float<bfloat16>(input));  // as matmul takes them
#pragma unroll
      for (int i = 0; i < kOutputs; i++) sums[r][i] = fmaf(input, values[i], sums[r][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
#pragma unroll
    for (int i = 0; i < kOutputs; i++) {
      float sum = warp_sum(sums[r][i]);
      if (p.scales && !by_group) sum *= p.scales[p.layout.scale_index(row0 + i, 0)];
      if (lane == 0 && r < rows) *p.out.at(pairs[r], n0 + i) = from_float<X>(sum);
    }
  }
}

template <class X, class W, int kRows>
void multiply(const GroupedMatmul& op, const Groups& groups, const WeightLayout& layout, Cuda& cuda) {
  const GroupedProduct<X, W> p{groups,
                               StridedRows<const X>(op.x),
                               StridedRows<X>(op.out),
                               op.weights.as<const W>(),
                               op.scales.as<const float>(),
                               layout,
                               op.x.shape[0] == groups.pairs ? 1 : groups.per_row,
                               op.out.shape[1]};
  // Every expert may end with a tile that is not full.
  const int64_t tiles = std::min<int64_t>(groups.pairs, groups.pairs / kRows + groups.experts);
  const dim3 blocks(static_cast<unsigned>(ceil_div(p.outputs, kWarps * kOutputs)), static_cast<unsigned>(tiles));
  launch_early(cuda, multiply_groups<X, W, kRows>, blocks, kThreads, 0, p);
}

}  // namespace

void run(const GroupedMatmul& op, Cuda& cuda) {
  if (op.out.size() == 0) return;
  const WeightLayout layout(op.dtype, op.x.shape[1], op.group);
  layout.check(op.weights, op.experts * op.out.shape[1]);
  const auto pairs = static_cast<int>(op.out.shape[0]), experts = static_cast<int>(op.experts);
  const bool few = pairs <= 2 * experts;
  int* const memory = cuda.scratch_of<int>(static_cast<size_t>(2 * (experts + 1) + pairs));
  const Groups groups{op.ids.as<const int32_t>(),
                      op.ids.stride0,
                      pairs,
                      static_cast<int>(op.ids.shape[1]),
                      experts,
                      few ? 2 : 16,
                      memory,
                      memory + experts + 1,
                      memory + 2 * (experts + 1)};
  launch(cuda, sort_pairs, 1, kSortThreads, static_cast<size_t>(experts) * sizeof(int), groups, cuda.fault());
  for_float(op.x.dtype, [&](auto x) {
    using X = decltype(x);
    const auto multiply_as = [&](auto w) {
      using W = decltype(w);
      if (few) {
        multiply<X, W, 2>(op, groups, layout, cuda);
      } else {
        multiply<X, W, 16>(op, groups, layout, cuda);
      }
    };
    if (op.dtype == DType::kInt8) {
      multiply_as(int8_t{});
    } else {
      for_float(op.dtype, multiply_as);
    }
  });
}

}  // namespace linattn::cuda
