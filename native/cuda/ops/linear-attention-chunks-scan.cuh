// The scan over a row's chunks. A block has a slice of a head's state rows, a warp 16 of them as the left fragments of
// all its products: state rows are the rows, and tokens or channels the columns (Hopper's warpgroup products take such
// fragments as they are). kSplit warps share 16 rows: each holds a part of the channels and makes the output of a part
// of the tokens; they exchange the state and v', rounded to bfloat16 as the products take them.
#pragma once
#include "cuda/ops/linear-attention-chunks-segments.cuh"
#include "cuda/ops/linear-attention-chunks-step.cuh"
#include "cuda/ops/linear-attention-chunks-warpgroup.cuh"

namespace linattn::cuda::chunks {

template <class Traits>
__device__ __forceinline__ void ScanBlock<Traits>::walk(int first, int end_chunk) {
  const auto sums_of = [&](int c) {
    return reinterpret_cast<float*>(memory + 2 * Traits::stage.bytes()) + (c - first) % 2 * kTokens;
  };
  const int thread = static_cast<int>(threadIdx.x);
  const bool gating = Traits::kAlone && group == Traits::kGroups - 1;
  if (first < end_chunk) {
    fetch(first, memory, thread);
    copy_async_commit();
  }
  enter(first);
  if (gating && first < end_chunk) make_gates(log_decays(first), sums_of(first), memory);
  for (int c = first; c < end_chunk; c++) {
    char* stage = memory + (c - first) % 2 * Traits::stage.bytes();
    char* next = memory + (c + 1 - first) % 2 * Traits::stage.bytes();
    float2 ahead = make_float2(0.0f, 0.0f);
    copy_async_wait<0>();
    __syncthreads();
    if (c + 1 < end_chunk) {
      fetch(c + 1, next, thread);
      copy_async_commit();
      if (gating) ahead = log_decays(c + 1);
    }
    if constexpr (Traits::kAlone) make_scores(sums_of(c), stage);
    run_chunk(c, stage);
    if (gating && c + 1 < end_chunk) make_gates(ahead, sums_of(c + 1), next);
    checkpoint(c);
  }
}

// A block is a ScanBlock or WarpgroupChunks.
template <class Traits, class Block>
__device__ __forceinline__ void run_scan(Block& block) {
  const Call& call = block.call;
  const Row& row = block.row;
  const int first = max(0, call.first_slot - row.slot), end_chunk = min(row.chunks, call.end_slot - row.slot);
  const bool empty = row.chunks == 0 && row.slot >= call.first_slot && row.slot < call.end_slot;
  if (first >= end_chunk && !empty) return;
  const Segment segment = segment_of(call, first, end_chunk, block.segment);
  if (segment.first >= segment.end && !(empty && block.segment == 0)) return;
  if (Traits::kEnds && (segment.last || (block.segment == 0 && block.of_transition()))) return;
  if constexpr (Traits::kFused) block.init_barriers();
  if constexpr (Traits::kWarpgroup) {
    if (static_cast<int>(threadIdx.x) >= Traits::kWorkers) {
      if constexpr (Traits::kFeedRegisters > 0) set_registers<Traits::kFeedRegisters, false>();
      return block.feed(segment.first, segment.end);
    }
    if constexpr (Traits::kFeedRegisters > 0) set_registers<Traits::kWorkRegisters, true>();
  }
  block.walk(segment.first, segment.end);
  if constexpr (Traits::kEnds) {
    block.store_state(block.segment_rows(block.segment));
    if constexpr (Block::kScales) block.store_transition();
  } else if (segment.last) {
    if (end_chunk < row.chunks) {
      block.store_state(call.carry_out + block.carry_offset(block.head));
    } else {
      block.end();
    }
  }
}

template <class Traits>
__host__ __device__ __forceinline__ int slices_of(const LinearSizes& x) {
  return (x.V * Traits::kHeads + (Traits::kTransitions ? Traits::K : 0)) / Traits::kWidth;
}

// Blocks: rows x segments x heads (of ends: state heads; of kHeads a block) x slices, slices first.
template <class Traits>
__global__ __launch_bounds__(Traits::kThreads, Traits::kBlocksAtOnce) void scan_kernel(Call call,
                                                                                       const __grid_constant__
                                                                                       typename Traits::Boxes boxes) {
  const int slices = slices_of<Traits>(call.sizes);
  const int slice = static_cast<int>(blockIdx.x) % slices, at = static_cast<int>(blockIdx.x) / slices;
  const int heads = (Traits::kEnds ? call.sizes.H : call.sizes.Ho) / Traits::kHeads, segments = call.segments;
  const int n = call.sizes.single_rows + at / heads / segments, segment = at / heads % segments;
  const int head = at % heads * Traits::kHeads * (Traits::kEnds ? call.sizes.G : 1);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  using Block = std::conditional_t<Traits::kWarpgroup, WarpgroupChunks<Traits>, ScanBlock<Traits>>;
  Block block{call,
              row_of(call, n),
              n,
              head,
              head / call.sizes.G,
              slice,
              segment,
              dynamic_shared<char>(),
              lane,
              lane / 4,
              lane % 4,
              warp / Traits::kSplit,
              warp % Traits::kSplit,
              {}};
  if constexpr (Traits::kFused) block.boxes = &boxes;
  run_scan<Traits>(block);
}

template <class Traits>
void launch_scan(const Call& call, Cuda& cuda, const typename Traits::Boxes& boxes = {}) {
  static_assert(!Traits::kWarpgroup || Traits::kShared <= kWarpgroupShared);
  const LinearSizes& x = call.sizes;
  const int heads = (Traits::kEnds ? x.H : x.Ho) / Traits::kHeads, segments = call.segments;
  const dim3 grid(static_cast<unsigned>((x.rows - x.single_rows) * segments * heads * slices_of<Traits>(x)));
  launch(cuda, scan_kernel<Traits>, grid, Traits::kThreads, Traits::kShared, call, boxes);
}

// Without records, by warpgroups. How many blocks there are does not choose: the bits are the same in any company.
template <int K, int rows, int heads>
void scan_fused(const Call& call, Cuda& cuda) {
  constexpr LinearRule rule = LinearRule::kAdditive;
  const ChunkBoxes boxes = make_chunk_boxes(call, rows);
  if (call.segments > 1) {
    launch_scan<ScanTraits<K, rows, 1, rule, false, ScanKind::kFusedEnds, heads>>(call, cuda, boxes);
    join_segments<K, rule, false>(call, cuda);
  }
  launch_scan<ScanTraits<K, rows, 1, rule, false, ScanKind::kFused, heads>>(call, cuda, boxes);
}

// The widest slices whose blocks fill the GPU: they read the chunks least often. Where that leaves few warps a
// multiprocessor, several share their state rows. Under 32 rows, memory traffic costs more than the idle half of a GPU.
template <int K, LinearRule rule, bool channels>
void scan(const Call& call, Cuda& cuda) {
  const auto tried = [&]<int rows, int split, ScanKind kind = ScanKind::kRecords>(bool fills) {
    using Traits = ScanTraits<K, rows, split, rule, channels, kind>;
    if (!fills || call.sizes.V % rows != 0 || Traits::kShared > cuda.properties.shared_memory) return false;
    launch_scan<Traits>(call, cuda);
    return true;
  };
  const int wide = wide_rows(call.sizes, cuda);
  if constexpr (K <= 128 && rule == LinearRule::kAdditive && !channels) {
    if (call.records == nullptr) {
      if (by_warpgroups(call.sizes, cuda)) {
        if (pairs_of_heads(call.sizes)) return scan_fused<K, 128, 2>(call, cuda);
        return call.sizes.V % 128 == 0 ? scan_fused<K, 128, 1>(call, cuda) : scan_fused<K, 64, 1>(call, cuda);
      }
      if (!tried.template operator()<128, 1, ScanKind::kAlone>(wide == 128)) {
        tried.template operator()<64, 1, ScanKind::kAlone>(true);
      }
      return;
    }
  }
  const int64_t processors = cuda.properties.multiprocessors;
  if constexpr (K <= 128) {
    if (by_warpgroups(call.sizes, cuda)) {
      if (call.segments > 1) {
        launch_scan<ScanTraits<K, 64, 1, rule, channels, ScanKind::kEnds>>(call, cuda);
        join_segments<K, rule, channels>(call, cuda);
      }
      return launch_scan<ScanTraits<K, 64, 1, rule, channels, ScanKind::kWarpgroup>>(call, cuda);
    }
    if (tried.template operator()<128, 1>(wide == 128)) return;
    if (tried.template operator()<64, 1>(wide > 0)) return;
  }
  if constexpr (K > 64) {
    if (tried.template operator()<64, 2>(scan_blocks(call.sizes, 64) >= processors)) return;
  }
  if (tried.template operator()<32, 4>(4 * scan_blocks(call.sizes, 32) >= processors)) return;
  tried.template operator()<16, 4>(true);
}

}  // namespace linattn::cuda::chunks
