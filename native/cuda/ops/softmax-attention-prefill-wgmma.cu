// softmaxAttention of prefill rows in 16 bits on Hopper, as FlashAttention-3 has it: one warp of a block has the copy
// engine load tiles of keys and values, two warpgroups of 64 query rows each multiply. Scores, weights and weighted
// values stay in registers. In the background of the weighing of a tile are the products of the tile before it. A row
// of few tokens after a long text has too few tiles of queries to fill the GPU: the blocks of a cluster share the keys
// of each.
#ifdef LINATTN_CUDA_EMULATOR
#include "cuda/ops/softmax-attention.cuh"

namespace linattn::cuda {

bool run_wgmma_prefill(const AttentionView&, Cuda&) { return false; }

}  // namespace linattn::cuda
#else
#include "cuda/device/launch.cuh"
#include "cuda/ops/softmax-attention-boxes.cuh"
#include "cuda/ops/softmax-attention-parts.cuh"

namespace linattn::cuda {
namespace {

template <int kWidthGiven>
struct HopperShape {
  static constexpr int kWidth = kWidthGiven;
  static constexpr int kKeys = kWidth <= 128 ? 128 : 80;  // of a tile
  static constexpr int kConsumers = 2;                    // warpgroups
  static constexpr int kConsumerRows = 64;
  static constexpr int kRows = kConsumers * kConsumerRows;
  static constexpr int kThreads = (1 + kConsumers) * 128;
  static constexpr int kStages = 2;  // of keys, and of values
  using Parts = AttentionParts<kRows, kWidth, kConsumers * 128>;
};

template <class T, class Shape>
struct HopperShared {
  alignas(1024) T queries[Shape::kConsumers][Shape::kConsumerRows * Shape::kWidth];
  T keys[Shape::kStages][Shape::kKeys * Shape::kWidth];
  T values[Shape::kStages][Shape::kKeys * Shape::kWidth];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// For each stage: keys and values are there, and are read.
template <class Shape>
struct StageBarriers {
  ByteBarrier keys_full[Shape::kStages], values_full[Shape::kStages];
  StageBarrier keys_empty[Shape::kStages], values_empty[Shape::kStages];
};

// What a block does: query rows [first_row, first_row + rows) of a row and key head, with tiles [first, last] of keys,
// of which [begin_key, last_position] are seen. Of `parts` blocks each has tiles of its own.
struct HopperWork {
  AttentionRow row;
  int kv_head, first_row, rows;
  int first_position, last_position, begin_key, first, last, parts;
};

// Keys and values to shared memory, by one warp.
template <class T, class Shape>
__device__ __forceinline__ void produce(const AttentionView& x, const KeyBoxes& boxes, const HopperWork& work,
                                        HopperShared<T, Shape>& shared, StageBarriers<Shape>& barriers) {
  for (int tile = work.first; tile <= work.last; tile++) {
    const int i = tile - work.first, stage = i % 2, unread = i / 2 % 2 ^ 1;
    const KeyBox box =
        find_key_box<Shape::kKeys>(x, boxes, work.row, tile * Shape::kKeys, work.begin_key, work.last_position + 1);
    const auto copy = [&](T* to, bool values, ByteBarrier& barrier) {
      if (threadIdx.x == 0) barrier.expect(Shape::kKeys * Shape::kWidth * sizeof(T));
      __syncwarp();
      copy_key_box<Shape::kWidth>(to, x, boxes, box, work.kv_head, values, barrier);
    };
    barriers.keys_empty[stage].wait(unread);
    copy(shared.keys[stage], false, barriers.keys_full[stage]);
    barriers.values_empty[stage].wait(unread);
    copy(shared.values[stage], true, barriers.values_full[stage]);
  }
}

template <class T, class Shape, bool kShared>
__device__ __forceinline__ void consume(const AttentionView& x, const HopperWork& work, HopperShared<T, Shape>& shared,
                                        StageBarriers<Shape>& barriers) {
  constexpr int kWidth = Shape::kWidth, kKeys = Shape::kKeys, kRows = Shape::kConsumerRows,
                kPieces = kWidth / kHalfPiece;
  const int group = threadIdx.x / kWarpgroup - 1, thread = threadIdx.x % kWarpgroup;
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int first_row = work.first_row + group * kRows;
  const int rows = min(kRows, work.rows - group * kRows);  // may be none
  T* const queries = shared.queries[group];
  for (int i = thread; i < kRows * kPieces; i += kWarpgroup) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool present = r < rows;
    const OutputRow at = output_row(x, work.row, work.kv_head, work.first_row + (r < rows ? group * kRows + r : 0));
    const T* from = static_cast<const T*>(x.q) + at.token * x.q_stride + at.head * x.width;
    copy_async_16(queries + wgmma_place<kWidth>(r, piece), present ? from + piece * kHalfPiece : from, present);
  }
  copy_async_commit();

  int positions[2];
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int r = min(work.rows - 1, group * kRows + warp * 16 + half * 8 + lane / 4);
    positions[half] = work.row.position + (work.first_row + r) / x.group;
  }
  const int first_position = work.row.position + first_row / x.group;
  const float factor = x.scale * kLog2E;
  float out[kWidth / 2];
#pragma unroll
  for (int i = 0; i < kWidth / 2; i++) out[i] = 0;
  float scores[kKeys / 2];
  uint32_t weights[kKeys / 16][4];

  const uint64_t query_operand = wgmma_operand<kWidth>(queries);
  const auto multiply_keys = [&](int stage) {
    const uint64_t keys = wgmma_operand<kWidth>(shared.keys[stage]);
#pragma unroll
    for (int d = 0; d < kWidth; d += 16) {
      const uint32_t bytes = d / kTileColumns * kTileBytes + d % kTileColumns * sizeof(T);
      wgmma<T, false>(scores, wgmma_further(query_operand, bytes), wgmma_further(keys, bytes), d > 0);
    }
    wgmma_commit();
  };
  const auto multiply_values = [&](int stage) {
    const uint64_t values = wgmma_operand<kWidth>(shared.values[stage]);
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
      wgmma<T, true>(out, weights[k], wgmma_further(values, k * 16 * kWidth * sizeof(T)), true);
    }
    wgmma_commit();
  };
  // Scores of a tile become weights, but for the conversion; `keep` is what the sums before are multiplied by.
  float keep[2];
  const auto weigh = [&](int tile) {
    const bool whole =
        tile * kKeys + kKeys - 1 <= first_position && (x.window == 0 || tile * kKeys > work.last_position - x.window);
    if (!whole) {
      const int first_key = tile * kKeys + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < kKeys / 2; i++) {
        const int apart = positions[i / 2 % 2] - (first_key + i / 4 * 8 + i % 2);
        if (apart < 0 || (x.window > 0 && apart >= x.window)) scores[i] = -INFINITY;
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float largest = top[half];
#pragma unroll
      for (int i = 2 * half; i < kKeys / 2; i += 4) largest = fmaxf(largest, fmaxf(scores[i], scores[i + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
      const float shift = largest == -INFINITY ? 0.0f : largest * factor;
      keep[half] = exp2_fast(top[half] * factor - shift);
      top[half] = largest;
      float total = 0;
#pragma unroll
      for (int i = 2 * half; i < kKeys / 2; i += 4) {
        scores[i] = exp2_fast(scores[i] * factor - shift);
        scores[i + 1] = exp2_fast(scores[i + 1] * factor - shift);
        total += scores[i] + scores[i + 1];
      }
      sum[half] = sum[half] * keep[half] + total;
    }
  };
  const auto pack_weights = [&] {
#pragma unroll
    for (int i = 0; i < kKeys / 4; i++) weights[i / 4][i % 4] = pack_pair<T>(scores[2 * i], scores[2 * i + 1]);
  };

  copy_async_wait<0>();
  wgmma_publish();
  named_barrier(1 + group, kWarpgroup);
  barriers.keys_full[0].wait(0);
  wgmma_begin();
  multiply_keys(0);
  wgmma_wait<0>();
  wgmma_settled(scores);
  barriers.keys_empty[0].arrive();
  weigh(work.first);
  pack_weights();
  const auto clear_values = [&](int tile, int stage) {
    const bool cleared = clear_unseen<kKeys, kWidth, kWarpgroup>(shared.values[stage], tile * kKeys, work.begin_key,
                                                                 work.last_position + 1);
    if (cleared) named_barrier(1 + group, kWarpgroup);
  };
  if (work.first < work.last && work.first * kKeys < work.begin_key) {
    barriers.values_full[0].wait(0);
    clear_values(work.first, 0);
  }
  for (int tile = work.first; tile < work.last; tile++) {
    const int i = tile - work.first, stage = i % 2, next = (i + 1) % 2;
    barriers.keys_full[next].wait((i + 1) / 2 % 2);
    wgmma_settled(scores);
    wgmma_settled(out);
    wgmma_begin();
    multiply_keys(next);
    barriers.values_full[stage].wait(i / 2 % 2);
    wgmma_begin();
    multiply_values(stage);
    wgmma_wait<1>();
    wgmma_settled(scores);
    barriers.keys_empty[next].arrive();
    weigh(tile + 1);
    wgmma_wait<0>();
    wgmma_settled(out);
    barriers.values_empty[stage].arrive();
    if (__any_sync(kFullMask, keep[0] != 1.0f || keep[1] != 1.0f)) {
#pragma unroll
      for (int j = 0; j < kWidth / 2; j++) out[j] *= keep[j / 2 % 2];
    }
    pack_weights();
  }
  const int i = work.last - work.first, stage = i % 2;
  barriers.values_full[stage].wait(i / 2 % 2);
  clear_values(work.last, stage);
  wgmma_settled(out);
  wgmma_begin();
  multiply_values(stage);
  wgmma_wait<0>();
  wgmma_settled(out);

#pragma unroll
  for (int half = 0; half < 2; half++) {
    sum[half] += __shfl_xor_sync(kFullMask, sum[half], 1);
    sum[half] += __shfl_xor_sync(kFullMask, sum[half], 2);
  }
  if constexpr (kShared) {
    named_barrier(1 + Shape::kConsumers, Shape::kConsumers * kWarpgroup);  // no tile is read any more
    auto& parts = reinterpret_cast<typename Shape::Parts&>(shared);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int r = group * kRows + warp * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0) parts.max[r] = top[half];
      if (lane % 4 == 0) parts.sum[r] = sum[half];
#pragma unroll
      for (int n = 0; n < kPieces; n++) {
        parts.pair(r, n * kHalfPiece + lane % 4 * 2) = make_float2(out[4 * n + 2 * half], out[4 * n + 2 * half + 1]);
      }
    }
  } else {
    // Through the shared memory of the warp's own queries, so that whole pieces are written.
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int r = warp * 16 + half * 8 + lane / 4;
      const OutputRow at =
          output_row(x, work.row, work.kv_head, work.first_row + min(work.rows - 1, group * kRows + r));
      const float share = finish_row(x, at, top[half] * x.scale, sum[half], r < rows && lane % 4 == 0);
#pragma unroll
      for (int n = 0; n < kPieces; n++) {
        const uint32_t pair = pack_pair<T>(out[4 * n + 2 * half] * share, out[4 * n + 2 * half + 1] * share);
        *reinterpret_cast<uint32_t*>(queries + wgmma_place<kWidth>(r, n) + lane % 4 * 2) = pair;
      }
    }
    __syncwarp();
    for (int j = lane; j < 16 * kPieces; j += kWarp) {
      const int r = warp * 16 + j / kPieces, piece = j % kPieces;
      if (r >= rows) continue;
      const OutputRow at = output_row(x, work.row, work.kv_head, first_row + r);
      T* const to = static_cast<T*>(x.out) + at.token * x.out_stride + at.head * x.width + piece * kHalfPiece;
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(queries + wgmma_place<kWidth>(r, piece));
    }
  }
}

// Whether clusters take a prefill row: its tiles of queries are few, its keys are many. It follows from the row alone.
template <class Shape>
__device__ __forceinline__ bool shares_keys(const AttentionView& x, const AttentionRow& row, int most_blocks) {
  if (!row.table) return false;
  const int64_t blocks = static_cast<int64_t>(row_tiles(x, row, Shape::kRows)) * x.kv_heads;
  return blocks <= most_blocks && row.end_key() - row.begin_key(x.window) >= kSharedKeys;
}

#endif

// kShared: of the rows that share their keys, with kKeySharers blocks for each tile of queries and key head; else of
// the others. `most_blocks`: without shared keys, of a row that shares them. Empty but for sm_90a; there it declares
// shared memory, by which is_for_hopper() knows it.
template <class T, class Shape, bool kShared>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    prefill_wgmma_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ KeyBoxes boxes,
                         int most_blocks) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  __shared__ StageBarriers<Shape> barriers;
  constexpr int kSharers = kShared ? kKeySharers : 1;
  const int block = static_cast<int>(blockIdx.x) / kSharers, sharer = static_cast<int>(blockIdx.x) % kSharers;
  const PrefillTile tile = find_tile(x, Shape::kRows, block / x.kv_heads, [&](const AttentionRow& row) {
    return shares_keys<Shape>(x, row, most_blocks) == kShared;
  });
  if (tile.row < 0) return;
  HopperWork work;
  work.kv_head = block % x.kv_heads;
  work.row = attention_row(x, tile.row);
  work.first_row = tile.index * Shape::kRows;
  work.rows = min(Shape::kRows, work.row.count * x.group - work.first_row);
  const int thread = static_cast<int>(threadIdx.x);
  if (!work.row.table) {
    for (int r = thread; r < work.rows; r += Shape::kThreads)
      clear_row(x, output_row(x, work.row, work.kv_head, work.first_row + r), 0, x.width, 1);
    return;
  }
  work.first_position = work.row.position + work.first_row / x.group;
  work.last_position = work.row.position + (work.first_row + work.rows - 1) / x.group;
  work.begin_key = x.window > 0 ? max(0, work.first_position - x.window + 1) : 0;
  work.first = work.begin_key / Shape::kKeys;
  work.last = work.last_position / Shape::kKeys;
  const int tiles = work.last - work.first + 1, each = static_cast<int>(ceil_div(tiles, kSharers));
  work.parts = static_cast<int>(ceil_div(tiles, each));
  work.first += sharer * each;
  work.last = min(work.last, work.first + each - 1);

  if (thread == 0) {
    for (int stage = 0; stage < Shape::kStages; stage++) {
      barriers.keys_full[stage].init();
      barriers.values_full[stage].init();
      barriers.keys_empty[stage].init(4 * Shape::kConsumers);
      barriers.values_empty[stage].init(4 * Shape::kConsumers);
    }
  }
  __syncthreads();
  auto& shared = *dynamic_shared<HopperShared<T, Shape>>();
  // Of the 168 registers that a thread of three warpgroups begins with.
  if (thread < kWarpgroup) {
    give_registers<24>();
    if (thread < kWarp && sharer < work.parts) produce(x, boxes, work, shared, barriers);
  } else {
    take_registers<240>();
    if (sharer < work.parts) consume<T, Shape, kShared>(x, work, shared, barriers);
  }
  if constexpr (kShared) {
    const auto& parts = reinterpret_cast<const typename Shape::Parts&>(shared);
    static_assert(sizeof(parts) <= sizeof(shared));
    __syncwarp();
    cluster_arrive();
    cluster_wait();
    if (thread >= kWarpgroup) {
      const auto at = [&](int r) { return output_row(x, work.row, work.kv_head, work.first_row + r); };
      parts.template merge<T>(x, at, work.rows, work.parts, sharer, thread - kWarpgroup);
    }
    __syncwarp();
    cluster_arrive();
    cluster_wait();  // the others may still read what is here
  }
#endif
}

// Whether a row of the batch may share its keys: for all that the host knows of their lengths.
template <class Shape>
bool may_share_keys(const AttentionView& x, int most_blocks, const Cuda& cuda) {
  if (static_cast<int64_t>(x.table_pages) * x.page_tokens < kSharedKeys) return false;
  const int64_t rows = x.sequences.rows - x.single_rows, tokens = x.sequences.tokens - x.single_rows;
  // A graph may be replayed with other lengths.
  const int64_t shortest = cuda.recording ? 0 : tokens - (rows - 1) * static_cast<int64_t>(x.max_tokens);
  return ceil_div(std::max<int64_t>(shortest, 1) * x.group, Shape::kRows) * x.kv_heads <= most_blocks;
}

template <class T, int kWidth>
bool launch_wgmma(const AttentionView& x, Cuda& cuda) {
  using Shape = HopperShape<kWidth>;
  const auto kernel = prefill_wgmma_kernel<T, Shape, false>;
  KeyBoxes boxes;
  if (!is_for_hopper(kernel) || !make_key_boxes(x, Shape::kKeys, boxes)) return false;
  constexpr size_t kBytes = sizeof(HopperShared<T, Shape>);
  const int sharing = cuda.properties.multiprocessors / 2;
  // Where no clusters are launched no row shares, not even one that is shorter than the host could know.
  const int most_blocks = may_share_keys<Shape>(x, sharing, cuda) ? sharing : 0;
  const int64_t blocks = prefill_tiles(x, Shape::kRows) * x.kv_heads;
  launch(cuda, kernel, static_cast<unsigned>(blocks), Shape::kThreads, kBytes, x, boxes, most_blocks);
  if (most_blocks == 0) return true;
  const int64_t shared = std::min(blocks, (x.sequences.rows - x.single_rows) * static_cast<int64_t>(most_blocks));
  LaunchHow clusters;
  clusters.cluster = kKeySharers;
  launch_as(clusters, cuda, prefill_wgmma_kernel<T, Shape, true>, static_cast<unsigned>(shared * kKeySharers),
            Shape::kThreads, kBytes, x, boxes, most_blocks);
  return true;
}

}  // namespace

bool run_wgmma_prefill(const AttentionView& x, Cuda& cuda) {
  if (!has_key_boxes(x, cuda) || x.slopes || x.bias || x.sink_tokens > 0 || x.scale <= 0) return false;
  bool launched = false;
  for_float(x.q_type, [&](auto value) {
    using T = decltype(value);
    if constexpr (sizeof(T) == 2) {
      launched = x.width == 64    ? launch_wgmma<T, 64>(x, cuda)
                 : x.width == 128 ? launch_wgmma<T, 128>(x, cuda)
                                  : launch_wgmma<T, 256>(x, cuda);
    }
  });
  return launched;
}

}  // namespace linattn::cuda
#endif
