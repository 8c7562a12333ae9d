// A block of the scan: what it fetches of each chunk, and where its state and outputs lie in registers and memory.
#pragma once
#include "cuda/ops/linear-attention-chunks-boxes.cuh"
#include "cuda/ops/linear-attention-chunks.cuh"

namespace linattn::cuda::chunks {

template <int kId, int kThreads>
__device__ __forceinline__ void named_barrier() {
#ifdef LINATTN_CUDA_EMULATOR
  emulator::named_barrier(kId, kThreads);
#else
  asm volatile("bar.sync %0, %1;\n" ::"n"(kId), "n"(kThreads) : "memory");
#endif
}

// Barrier of the warps that share state rows: one of up to 4 groups.
template <int kGroups, int kThreads>
__device__ __forceinline__ void group_barrier(int group) {
  static_assert(kGroups <= 4);
  if (kGroups == 1 || group == 0) return named_barrier<1, kThreads>();
  if (kGroups == 2 || group == 1) return named_barrier<2, kThreads>();
  if (kGroups == 3 || group == 2) return named_barrier<3, kThreads>();
  named_barrier<4, kThreads>();
}

// kAlone: without records. kWarpgroup: 64 state rows by products of a warpgroup, while other warps fetch. kEnds: the
// same for the ends and transitions of segments alone. kFused, kFusedEnds: the same, and those other warps make the
// records, in shared memory. kHeads: heads of a block, which then have the same queries and keys and 64 rows each.
enum class ScanKind { kRecords, kAlone, kWarpgroup, kEnds, kFused, kFusedEnds };
template <int kK, int kRows, int kSplit_, LinearRule kRule, bool kChannels_, ScanKind kKind, int kHeads_ = 1>
struct ScanTraits {
  static constexpr int K = kK, kGroups = kRows / 16, kSplit = kSplit_, kWidth = kRows;
  static constexpr LinearRule rule = kRule;
  static constexpr bool kChannels = kChannels_;
  static constexpr bool kAlone = kKind == ScanKind::kAlone;
  static constexpr bool kFused = kKind == ScanKind::kFused || kKind == ScanKind::kFusedEnds;
  static constexpr bool kEnds = kKind == ScanKind::kEnds || kKind == ScanKind::kFusedEnds;
  static constexpr bool kWarpgroup = kKind == ScanKind::kWarpgroup || kEnds || kFused;
  static constexpr int kHeads = kHeads_;
  // Whether some blocks have the rows of a segment's transition.
  static constexpr bool kTransitions = kEnds && rule != LinearRule::kAdditive;
  using Boxes = std::conditional_t<kFused, ChunkBoxes, NoBoxes>;
  static constexpr int kWorkers = kGroups * kSplit * kWarp;
  static constexpr int kFetchers = kWarpgroup ? 4 * kWarp : kWorkers;
  static constexpr int kThreads = kWorkers + (kWarpgroup ? kFetchers : 0);
  static constexpr int kParts = K / kBlock / kSplit;  // 16-channel parts of the state of a warp
  static constexpr int kOwn = kBlocks / kSplit;       // token blocks whose output a warp makes
  static constexpr RecordLayout record = record_layout(rule, kChannels, K);
  static constexpr StageLayout stage{record, kChannels, !kEnds, kWidth, kHeads};
  static constexpr int kFitting = (226 << 10) / stage.bytes();
  static constexpr int kStages = !kWarpgroup || kFitting < 3 ? 2 : kFused && kThreads > 256 && kFitting > 3 ? 4 : 3;
  // Bytes: of log decays, and of a barrier for each stage.
  static constexpr int kSums = kFused ? kHeads * kTokens * 4 : 0, kBarriers = kFused ? kStages * 8 : 0;
  static constexpr int kShared =
      kWarpgroup ? kStages * stage.bytes() + kSums + kBarriers : stage.shared(kSplit == 1 ? 0 : kGroups);
  // Of a multiprocessor, where registers and shared memory allow it.
  static constexpr int kBlocksAtOnce =
      2 * (kShared + 1024) <= (227 << 10) && (kThreads <= 128 || (K == 64 && rule == LinearRule::kAdditive)) ? 2 : 1;
  // Of threads that fetch and of workers, where as many for both are too few for workers; 0: as many for both.
  static constexpr bool kFewRegisters = kFused && !kEnds && (kBlocksAtOnce == 2 || (kThreads > 256 && K > 64));
  static constexpr int kFeedRegisters = kFewRegisters ? 88 : 0, kWorkRegisters = kThreads > 256 ? 208 : 168;
};

template <class Traits>
struct ScanBlock {
  static constexpr int K = Traits::K, kSplit = Traits::kSplit;
  const Call& call;
  Row row;
  int n, head, state_head, slice, segment;
  char* memory;
  int lane, g, p, group, part;  // of a worker
  Sums state[Traits::kParts];

  __device__ __forceinline__ int own_block(int i) const {
    if constexpr (kSplit == 1) return i;
    if constexpr (kSplit == 2) return i == 0 ? part : kBlocks - 1 - part;  // as many products below the diagonal
    return part;
  }

  // Whether the rows of this block are those of a transition.
  __device__ __forceinline__ bool of_transition() const {
    return Traits::kTransitions && slice >= call.sizes.V / Traits::kWidth;
  }
  // Of the state rows in `ends` or, from its own slice on, in `transitions`.
  __device__ __forceinline__ float* segment_rows(int of_segment) const {
    const int64_t at = call.segment_index(n, state_head, of_segment);
    if (!of_transition()) return call.ends + at * call.sizes.V * K;
    return call.transitions + at * K * K - static_cast<int64_t>(call.sizes.V) * K;
  }

  static constexpr int kKeys = Traits::kEnds ? 0 : K * 128;  // of scalar decays, in a stage

  // By `thread` of kFetchers.
  __device__ __forceinline__ void fetch(int c, char* stage, int thread) {
    constexpr int kFetchers = Traits::kFetchers;
    const Chunk chunk = chunk_of(row, c);
    const LinearSizes& x = call.sizes;
    if constexpr (!Traits::kChannels) {
      const bfloat16* q = call.q + chunk.first * call.q_stride + shared_head(head, x.q_share) * x.K;
      const bfloat16* k = call.k + chunk.first * call.k_stride + k_head(x, state_head) * x.K;
      if constexpr (!Traits::kEnds) load_tile_async<kFetchers, K / 8>(stage, q, call.q_stride, chunk, x.K / 8, thread);
      load_tile_async<kFetchers, K / 8>(stage + kKeys, k, call.k_stride, chunk, x.K / 8, thread);
    }
    if constexpr (!Traits::kAlone && !Traits::kFused) {
      const char* record = call.record(row.slot + c, head, Traits::record.bytes());
      constexpr int kSkipped = Traits::kEnds && Traits::kChannels ? Traits::record.tile(1) : 0;  // queries
      copy_record_async<kFetchers, Traits::record.read() - kSkipped>(stage + Traits::stage.given() + kSkipped,
                                                                     record + kSkipped, thread);
    }
    if (!of_transition()) {
      const bfloat16* v = call.v + chunk.first * call.v_stride + v_head(x, state_head) * x.V + slice * Traits::kWidth;
      constexpr int kPieces = Traits::kWidth / 8;
      load_tile_async<kFetchers, kPieces>(stage + Traits::stage.values(), v, call.v_stride, chunk, kPieces, thread);
    }
  }

  // The record of a chunk that is in shared memory, by all warps: of its gates, by the last warp, and q k'.
  __device__ __forceinline__ float2 log_decays(int c) const {
    return two_log_decays(call, chunk_of(row, c), state_head, c == 0 && call.fresh(n));
  }
  __device__ __forceinline__ void make_gates(float2 log_decays, float* sums, char* stage) const {
    auto* gates = reinterpret_cast<float*>(stage + Traits::stage.given() + Traits::record.gate());
    sum_of_lanes(log_decays, sums);
    __syncwarp();
#pragma unroll
    for (int t = lane; t < kTokens; t += kWarp) put_gates(gates, t, sums[t], sums[kTokens - 1]);
  }
  __device__ __forceinline__ void make_scores(const float* sums, char* stage) const {
    for (int at = group; at < kLower; at += Traits::kGroups) {
      const int i = at < 1 ? 0 : at < 3 ? 1 : at < 6 ? 2 : 3, j = at - lower_index(i, 0);
      Sums scores = {};
#pragma unroll
      for (int c = 0; c < K; c += kBlock) {
        Fragment query, key;
        load_tile_block(query, stage, i * kBlock, c, lane);
        load_tile_block(key, stage + K * 128, j * kBlock, c, lane);
        multiply(scores, query, key);
      }
      gate_below(scores, sums, i, j, lane);
      Fragment packed;
      pack_block(packed, scores);
      store_block(stage + Traits::stage.given() + Traits::record.matrix(kOut) + at * 512, lane, packed);
    }
  }

  // v' of a token block as fragments: state rows x tokens.
  __device__ __forceinline__ void load_values(Fragment& to, const char* stage, int block) const {
    if (of_transition()) {
      to[0] = to[1] = to[2] = to[3] = 0;
    } else {
      load_tile_block_transposed(to, stage + Traits::stage.values(), block * kBlock, group * 16, lane);
    }
  }

  // This warp's part of a state in memory; `base` is the head's.
  template <class Body>
  __device__ __forceinline__ void each_state(float* base, Body&& body) {
#pragma unroll
    for (int i = 0; i < Traits::kParts; i++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int c = (part * Traits::kParts + i) * kBlock + half * 8 + 2 * p;
#pragma unroll
        for (int low = 0; low < 2; low++) {
          const int r = group * 16 + g + low * 8;
          if (c >= call.sizes.K) continue;
          auto* at =
              reinterpret_cast<float2*>(base + (static_cast<int64_t>(slice) * Traits::kWidth + r) * call.sizes.K + c);
          body(*at, state[i][half][low * 2], state[i][half][low * 2 + 1]);
        }
      }
    }
  }
  __device__ __forceinline__ void load_state(const float* base) {
    each_state(const_cast<float*>(base), [](float2& at, float& x, float& y) {
      const float2 two = at;
      x = two.x;
      y = two.y;
    });
  }
  __device__ __forceinline__ void store_state(float* base) {
    each_state(base, [](float2& at, float x, float y) { at = make_float2(x, y); });
  }
  __device__ __forceinline__ float* slot_state(int slot) const {
    return call.state + slot * call.state_stride + static_cast<int64_t>(state_head) * call.sizes.V * call.sizes.K;
  }
  __device__ __forceinline__ int64_t carry_offset(int64_t index) const { return index * call.sizes.V * call.sizes.K; }

  __device__ __forceinline__ void begin() {
    if (call.state == nullptr) return;
    const int slot = checked_slot(call.fault, FaultName::kReadSlots, call.sequences.read_slots, n, call.sizes.slots);
    if (slot < 0) return;
    const int64_t at = int64_t{n - call.sizes.single_rows} * call.sizes.H + state_head;
    const bool copied = call.start && !Traits::kEnds;  // ends come before the copy, and write no slots
    load_state(copied ? call.start + carry_offset(at) : slot_state(slot));
  }
  // The state before chunk `first`.
  __device__ __forceinline__ void enter(int first) {
    const int row0 = (slice - call.sizes.V / Traits::kWidth) * Traits::kWidth + group * 16 + g;  // of a transition
#pragma unroll
    for (int i = 0; i < Traits::kParts; i++) {
#pragma unroll
      for (int e = 0; e < 8; e++) {
        const int r = row0 + e % 4 / 2 * 8, c = (part * Traits::kParts + i) * kBlock + e / 4 * 8 + 2 * p + e % 2;
        state[i][e / 4][e % 4] = of_transition() && r == c ? 1.0f : 0.0f;
      }
    }
    if (segment > 0) {
      if constexpr (!Traits::kEnds) load_state(segment_rows(segment - 1));
    } else if (first == 0) {
      begin();
    } else {
      load_state(call.carry_in + carry_offset(head));
    }
  }
  __device__ __forceinline__ void end() {
    if (call.state == nullptr || head % call.sizes.G != 0) return;
    const int slot = checked_slot(call.fault, FaultName::kWriteSlots, call.sequences.write_slots, n, call.sizes.slots);
    if (slot >= 0) store_state(slot_state(slot));
  }

  // After chunk c, where a multiple of `every` is passed.
  __device__ __forceinline__ void checkpoint(int c) {
    const bool kept = !Traits::kEnds && head % call.sizes.G == 0;
    const int slot = kept ? checkpoint_slot(call, row, n, c) : -1;
    if (slot >= 0) store_state(slot_state(slot));
  }

  __device__ __forceinline__ void store_out(const Chunk& chunk, int block, const Sums& out) {
    const LinearSizes& x = call.sizes;
#pragma unroll
    for (int low = 0; low < 2; low++) {
      const int token = block * kBlock + g + low * 8 - chunk.skip;
      const bool present = token >= 0 && token < chunk.count;
      const int64_t at = static_cast<int64_t>(chunk.first + token) * x.Ho + head;
      float by = call.scale;
      if (call.normalize && present) by = 1.0f / (call.sums[at] + call.eps);
      store_pairs(at, present, pack(out[0][low * 2] * by, out[0][low * 2 + 1] * by),
                  pack(out[1][low * 2] * by, out[1][low * 2 + 1] * by));
    }
  }
  // A token's outputs of state rows 2p, 2p + 1 and 8 + 2p, 9 + 2p of the group.
  __device__ __forceinline__ void store_pairs(int64_t at, bool present, uint32_t first, uint32_t second) {
    // A lane of even place takes four state rows of the first eight, the next one four of the others.
    const bool even = p % 2 == 0;
    const uint32_t other = __shfl_xor_sync(kFullMask, even ? second : first, 1);
    const int r = slice * Traits::kWidth + group * 16 + (even ? 2 * p : 8 + 2 * (p - 1));
    if (present && call.out != nullptr) {
      *reinterpret_cast<uint2*>(call.out + at * call.sizes.V + r) =
          even ? make_uint2(first, other) : make_uint2(other, second);
    }
  }

  __device__ __forceinline__ void decay_state(const float* gates);
  __device__ void run_chunk(int c, const char* stage);
  __device__ void walk(int first, int end_chunk);
};

}  // namespace linattn::cuda::chunks
