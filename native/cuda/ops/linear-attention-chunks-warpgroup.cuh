// A chunk of the scan by a warpgroup with 64 state rows: the products with the state run in the background while the
// warps do what does not wait for them, and the outputs of a chunk leave under the first products of the next one.
#pragma once
#include "cuda/ops/linear-attention-chunks-fused.cuh"

namespace linattn::cuda::chunks {

// Outputs that wait to be stored: of each 8 tokens, the pairs of state rows 0..7 and 8..15 of a group.
struct PendingOut {
  uint32_t pairs[2 * kBlocks][2];
  Chunk chunk{};
};

template <class Traits>
struct WarpgroupChunks : ScanBlock<Traits> {
  using Base = ScanBlock<Traits>;
  using Base::call, Base::row, Base::head, Base::lane, Base::g, Base::p, Base::group, Base::slice, Base::state;
  static constexpr int K = Traits::K;
  static constexpr LinearRule rule = Traits::rule;
  static constexpr RecordLayout record = Traits::record;
  static constexpr bool kDecayed = !Traits::kChannels;  // updates get their decay until the end of the chunk here

  // The transition of a segment is a number for each head.
  static constexpr bool kScales = Traits::kEnds && rule == LinearRule::kAdditive && !Traits::kChannels;

  static constexpr bool kNormalizes = !Traits::kFused;  // which has no key sums

  const ChunkBoxes* boxes = nullptr;  // of kFused
  PendingOut pending{};
  float transition = 1.0f;

  __device__ __forceinline__ int head_in_block() const { return Traits::kHeads == 1 ? 0 : group / kBlocks; }
  __device__ __forceinline__ void store_transition() const {
    if (slice != 0 || lane != 0 || group != head_in_block() * kBlocks) return;
    call.transitions[call.segment_index(Base::n, Base::state_head + head_in_block(), Base::segment)] = transition;
  }

  // Pairs of tokens times the gates from `at` on.
  __device__ __forceinline__ void scale_tokens(Sums& x, const float* at) const {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float2 gate = *reinterpret_cast<const float2*>(at + half * 8 + 2 * p);
#pragma unroll
      for (int e = 0; e < 4; e++) x[half][e] *= e % 2 ? gate.y : gate.x;
    }
  }
  __device__ __forceinline__ void unpack(Sums& to, const Fragment& from) const {
#pragma unroll
    for (int r = 0; r < 4; r++) {
      to[r / 2][r % 2 * 2] = low_of(from[r]);
      to[r / 2][r % 2 * 2 + 1] = high_of(from[r]);
    }
  }

  // sums[i] += values[j] X(i, j)', for the blocks of a lower triangular matrix: sums follow one another, so that none
  // waits for the one before it. `rows`: of those rows of blocks alone whose number is not 0.
  __device__ __forceinline__ void multiply_lower(Sums (&sums)[kBlocks], const Fragment (&values)[kBlocks],
                                                 const char* matrix, const float* rows = nullptr) const {
#pragma unroll
    for (int j = 0; j < kBlocks; j++) {
#pragma unroll
      for (int i = j; i < kBlocks; i++) {
        if (rows && rows[i] == 0.0f) continue;
        Fragment y;
        load_block(y, matrix + lower_index(i, j) * 512, lane);
        multiply(sums[i], values[j], y);
      }
    }
  }

  __device__ __forceinline__ void keep_out(const Chunk& chunk, const Sums (&out)[kBlocks]) {
    float by[4 * kBlocks] = {};  // of tokens 8 i + 2 p and the next one
    if (kNormalizes && call.normalize) {
      // Of tokens that are not there a neighbour's: all loads are under way at once.
#pragma unroll
      for (int i = 0; i < 4 * kBlocks; i++) {
        const int token = min(max(i / 2 * 8 + 2 * p + i % 2 - chunk.skip, 0), chunk.count - 1);
        by[i] = call.sums[static_cast<int64_t>(chunk.first + token) * call.sizes.Ho + head];
      }
    }
#pragma unroll
    for (int i = 0; i < 4 * kBlocks; i++) {
      by[i] = kNormalizes && call.normalize ? 1.0f / (by[i] + call.eps) : call.scale;
    }
#pragma unroll
    for (int i = 0; i < 2 * kBlocks; i++) {
      const float* x = out[i / 2][i % 2];
      pending.pairs[i][0] = pack(x[0] * by[2 * i], x[1] * by[2 * i + 1]);
      pending.pairs[i][1] = pack(x[2] * by[2 * i], x[3] * by[2 * i + 1]);
    }
    pending.chunk = chunk;
  }
  __device__ __forceinline__ void store_pending() {
    if (call.out == nullptr) return;
    uint32_t pairs[2 * kBlocks][2];
#pragma unroll
    for (int i = 0; i < 2 * kBlocks; i++) {
#pragma unroll
      for (int e = 0; e < 2; e++) pairs[i][e] = transpose_8x8(pending.pairs[i][e]);
    }
    // A lane of even place takes four state rows of the first eight, the next one four of the others.
    const bool even = p % 2 == 0;
    uint32_t others[2 * kBlocks];
#pragma unroll
    for (int i = 0; i < 2 * kBlocks; i++) others[i] = __shfl_xor_sync(kFullMask, even ? pairs[i][1] : pairs[i][0], 1);
    const int first = g - pending.chunk.skip;
    const int64_t stride = static_cast<int64_t>(call.sizes.Ho) * call.sizes.V;
    bfloat16* at = call.out + (pending.chunk.first + first) * stride + static_cast<int64_t>(head) * call.sizes.V +
                   slice * Traits::kWidth + group * 16 + (even ? 2 * p : 8 + 2 * (p - 1));
    const auto four = [&](int i) {
      return even ? make_uint2(pairs[i][0], others[i]) : make_uint2(others[i], pairs[i][1]);
    };
    if (pending.chunk.count == kTokens) {
#pragma unroll
      for (int i = 0; i < 2 * kBlocks; i++) {
        *reinterpret_cast<uint2*>(at) = four(i);
        at += 8 * stride;
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 2 * kBlocks; i++) {
      const int token = first + i * 8;
      if (token >= 0 && token < pending.chunk.count) *reinterpret_cast<uint2*>(at + i * 8 * stride) = four(i);
    }
  }

  __device__ __forceinline__ char* stage_of(int i) const {
    return Base::memory + i % Traits::kStages * Traits::stage.bytes();
  }

  // Fills a ring of stages with chunk after chunk, by the warps that fetch.
  __device__ __forceinline__ void feed(int first, int end_chunk) {
    constexpr int kAhead = Traits::kStages - 1;
    const int thread = static_cast<int>(threadIdx.x) - Traits::kWorkers;
    if constexpr (Traits::kFused) return feed_and_make(first, end_chunk, thread);
    const auto fetch_or_nothing = [&](int c) {
      if (c < end_chunk) this->fetch(c, stage_of(c - first), thread);
      copy_async_commit();
    };
    for (int i = 0; i < kAhead; i++) fetch_or_nothing(first + i);
    for (int c = first; c < end_chunk; c++) {
      copy_async_wait<kAhead - 1>();
      publish_to_products();
      __syncthreads();
      fetch_or_nothing(c + kAhead);
    }
  }

  // The same, with the records of the chunks. Whole chunks come by the copy engine where it has boxes.
  __device__ __forceinline__ void feed_and_make(int first, int end_chunk, int thread) {
    constexpr int kAhead = Traits::kStages - 1;
    const auto in_boxes = [&](int c) { return boxes->made && chunk_of(row, c).count == kTokens; };
    const auto fetch_or_nothing = [&](int c) {
      if (c >= end_chunk) return;
      if (!in_boxes(c)) {
        this->fetch(c, stage_of(c - first), thread);
        copy_async_commit();
      } else if (thread < kWarp) {
        if (thread == 0) copy_boxes(chunk_of(row, c).first, stage_of(c - first), arrived(c - first));
      } else {
        arrived(c - first).arrive();
      }
    };
    for (int i = 0; i < kAhead; i++) fetch_or_nothing(first + i);
    const RecordMaker<Traits> maker{*this, log_sums(), thread / kWarp, lane};
    float2 logs = maker.log_decays(first, end_chunk);
    for (int c = first; c < end_chunk; c++) {
      const float2 ahead = maker.log_decays(c + 1, end_chunk);
      if (!in_boxes(c)) {
        copy_async_wait<0>();
        publish_to_products();
        arrived(c - first).arrive();
      }
      wait_for_boxes(c - first);
      maker.make(logs, stage_of(c - first));
      logs = ahead;
      __syncthreads();
      fetch_or_nothing(c + kAhead);
    }
  }

  __device__ __forceinline__ float* log_sums() const {
    return reinterpret_cast<float*>(Base::memory + Traits::kStages * Traits::stage.bytes());
  }
  // The barrier of the stage of a segment's chunk i, where each warp that fetches arrives.
  __device__ __forceinline__ ByteBarrier& arrived(int i) const {
    return reinterpret_cast<ByteBarrier*>(log_sums() + Traits::kHeads * kTokens)[i % Traits::kStages];
  }
  __device__ __forceinline__ void wait_for_boxes(int i) const { arrived(i).wait(i / Traits::kStages % 2); }
  __device__ __forceinline__ void init_barriers() const {
    if (threadIdx.x == 0) {
      for (int i = 0; i < Traits::kStages; i++) arrived(i).init(Traits::kFetchers / kWarp);
    }
    __syncthreads();
  }
  // By one thread.
  __device__ __forceinline__ void copy_boxes([[maybe_unused]] int first_token, [[maybe_unused]] char* stage,
                                             [[maybe_unused]] ByteBarrier& barrier) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const LinearSizes& x = call.sizes;
    constexpr int kPanels = K / 64;
    barrier.expect((Traits::kEnds ? 1 : 2) * K * 128 + Traits::kWidth * 128);
    if constexpr (!Traits::kEnds) {
      copy_box(stage, boxes->q, {0, first_token, shared_head(head, x.q_share) * kPanels, 0, 0}, barrier);
    }
    copy_box(stage + Base::kKeys, boxes->k, {0, first_token, k_head(x, Base::state_head) * kPanels, 0, 0}, barrier);
    const int panel = (v_head(x, Base::state_head) * x.V + slice * Traits::kWidth) / 64;
    copy_box(stage + Traits::stage.values(), boxes->v, {0, first_token, panel, 0, 0}, barrier);
#endif
  }

  // Takes chunk after chunk from there.
  __device__ __forceinline__ void walk(int first, int end_chunk) {
    this->enter(first);
    for (int c = first; c < end_chunk; c++) {
      __syncthreads();
      if constexpr (Traits::kFused) wait_for_boxes(c - first);
      const char* stage = stage_of(c - first);
      // No branch while products are under way: the compiler would have each of them wait for the one before it.
      if (has_rest(stage)) {
        take<true>(c, stage);
      } else {
        take<false>(c, stage);
      }
      this->checkpoint(c);
    }
    store_pending();
  }

  // Whether T of this chunk has a rest.
  __device__ __forceinline__ bool has_rest(const char* stage) const {
    if constexpr (rule == LinearRule::kAdditive) return false;
    const float4 large = *reinterpret_cast<const float4*>(stage + Traits::stage.given() + record.large());
    return __any_sync(kFullMask, large.x + large.y + large.z + large.w > 0.0f);
  }

  template <bool kRest>
  __device__ __forceinline__ void take([[maybe_unused]] int c, const char* stage) {
    const char* given = stage + Traits::stage.given() + head_in_block() * record.rest();
    const char* query = Traits::kChannels ? given + record.tile(kQuery) : stage;
    const char* write = Traits::kChannels ? given + record.tile(kWrite) : stage + Base::kKeys;
    const char* read = Traits::kChannels ? given + record.tile(kRead) : stage + Base::kKeys;
    const auto* gates = reinterpret_cast<const float*>(given + record.gate());
    constexpr bool kReads = rule != LinearRule::kAdditive, kOutputs = !Traits::kEnds;

    // The state before
    Fragment x[K / kBlock];
    Sums out[kBlocks], told[kBlocks];
#pragma unroll
    for (int i = 0; i < K / kBlock; i++) pack_block(x[i], state[i]);
    this->decay_state(gates);
    if constexpr (kScales) transition *= gates[2 * kTokens];
    begin_products();
    if constexpr (kReads) {
      multiply_tokens<false>(told, x[0], read, 0, lane);
#pragma unroll
      for (int i = 1; i < K / kBlock; i++) multiply_tokens<true>(told, x[i], read, i * kBlock, lane);
      commit_products();
    }
    if constexpr (kOutputs) {
      multiply_tokens<false>(out, x[0], query, 0, lane);
#pragma unroll
      for (int i = 1; i < K / kBlock; i++) multiply_tokens<true>(out, x[i], query, i * kBlock, lane);
      commit_products();
      store_pending();
    }
    Fragment values[kBlocks], updates[kBlocks], late[kDecayed ? kBlocks : 1];
#pragma unroll
    for (int j = 0; j < kBlocks; j++) this->load_values(values[j], stage, j);

    // What is written: v of additive, v' of delta, c of lowRank; for scalar decays also with the decay until the end.
    const auto decay_values = [&](Fragment& to, const Sums& given_sums, int block) {
      Sums sums;
#pragma unroll
      for (int e = 0; e < 8; e++) sums[e / 4][e % 4] = given_sums[e / 4][e % 4];
      scale_tokens(sums, gates + kTokens + block * kBlock);
      pack_block(to, sums);
    };
    if constexpr (!kReads) {
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        Sums sums;
        unpack(sums, values[j]);
        if constexpr (kDecayed) decay_values(late[j], sums, j);
      }
    } else {
      Sums wanted[kBlocks] = {};
      if constexpr (rule == LinearRule::kLowRank) multiply_lower(wanted, values, given + record.matrix(kLow));
      finish_products<kOutputs && !kRest ? 1 : 0>(told);
      Fragment packed[kBlocks];
#pragma unroll
      for (int i = 0; i < kBlocks; i++) {
        if constexpr (rule == LinearRule::kDelta) {
          unpack(wanted[i], values[i]);
          if constexpr (kDecayed) scale_tokens(told[i], gates + i * kBlock);
#pragma unroll
          for (int e = 0; e < 8; e++) wanted[i][e / 4][e % 4] -= told[i][e / 4][e % 4];
        } else {
#pragma unroll
          for (int e = 0; e < 8; e++) wanted[i][e / 4][e % 4] += told[i][e / 4][e % 4];
        }
        pack_block(packed[i], wanted[i]);
      }
      Sums solved[kBlocks] = {};
      multiply_lower(solved, packed, given + record.matrix(kSolve));
      if constexpr (kRest) {
        multiply_lower(solved, packed, call.record(row.slot + c, head, record.bytes()) + record.rest(),
                       reinterpret_cast<const float*>(given + record.large()));
      }
#pragma unroll
      for (int i = 0; i < kBlocks; i++) {
        pack_block(updates[i], solved[i]);
        if constexpr (kDecayed) decay_values(late[i], solved[i], i);
      }
    }

    begin_products();
#pragma unroll
    for (int i = 0; i < K / kBlock; i += kBlocks) {
      auto& channels = reinterpret_cast<Sums(&)[kBlocks]>(state[i]);
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        if constexpr (kDecayed) {
          multiply_channels(channels, late[j], write, j * kBlock, i * kBlock, lane);
        } else {
          multiply_channels(channels, rule == LinearRule::kDelta ? updates[j] : values[j], write, j * kBlock,
                            i * kBlock, lane);
        }
        if constexpr (rule == LinearRule::kLowRank) {
          multiply_channels(channels, updates[j], given + record.tile(kWriteLow), j * kBlock, i * kBlock, lane);
        }
      }
    }
    commit_products();
    if constexpr (kOutputs) {
      finish_products<1>(out);
      if constexpr (kDecayed) {
#pragma unroll
        for (int i = 0; i < kBlocks; i++) scale_tokens(out[i], gates + i * kBlock);
      }
      multiply_lower(out, rule == LinearRule::kDelta ? updates : values, given + record.matrix(kOut));
      if constexpr (rule == LinearRule::kLowRank) multiply_lower(out, updates, given + record.matrix(kOutLow));
      keep_out(chunk_of(row, c), out);
    }
    finish_products<0>(state);
  }
};

}  // namespace linattn::cuda::chunks
