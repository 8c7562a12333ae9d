// Records of chunks with scalar decays and the additive rule, made in shared memory by the warps of a block that fetch,
// while the others multiply with the chunk before.
#pragma once
#include "cuda/ops/linear-attention-chunks-products.cuh"
#include "cuda/ops/linear-attention-chunks-state.cuh"

namespace linattn::cuda::chunks {

constexpr int kFetchBarrier = 5;  // past those of group_barrier

template <class Traits>
struct RecordMaker {
  static_assert(Traits::kFetchers == 4 * kWarp);
  static constexpr RecordLayout record = Traits::record;
  const ScanBlock<Traits>& block;
  float* sums;  // [heads of the block, 64] of log decays
  int warp, lane;

  // Of the head whose gates this warp makes, where it makes any.
  __device__ __forceinline__ float2 log_decays(int c, int end_chunk) const {
    if (warp >= Traits::kHeads || c >= end_chunk) return make_float2(0.0f, 0.0f);
    const Call& call = block.call;
    return two_log_decays(call, chunk_of(block.row, c), block.state_head + warp, c == 0 && call.fresh(block.n));
  }

  // Of a chunk whose copies this thread has waited for.
  __device__ __forceinline__ void make(float2 log_decays, char* stage) const {
    if (warp < Traits::kHeads) {
      float* own = sums + warp * kTokens;
      sum_of_lanes(log_decays, own);
      __syncwarp();
      auto* gates = reinterpret_cast<float*>(record_of(stage, warp) + record.gate());
#pragma unroll
      for (int t = lane; t < kTokens; t += kWarp) put_gates(gates, t, own[t], own[kTokens - 1]);
    }
    if constexpr (!Traits::kEnds) make_scores(stage);
  }

 private:
  __device__ __forceinline__ char* record_of(char* stage, int head) const {
    return stage + Traits::stage.given() + head * record.rest();
  }

  // P, of which a warp takes a row of blocks.
  __device__ __forceinline__ void make_scores(char* stage) const {
    constexpr int K = Traits::K;
    publish_to_products();
    named_barrier<kFetchBarrier, Traits::kFetchers>();
    const char* keys = stage + ScanBlock<Traits>::kKeys;
    const bool decayed = block.call.decay != LinearDecay::kNone;
    Sums scores[kBlocks];
    begin_products();
    multiply_tiles<false>(scores, stage, warp * kBlock, keys, 0, lane);
#pragma unroll
    for (int i = 1; i < K / kBlock; i++) {
      multiply_tiles<true>(scores, stage, warp * kBlock, keys, i * kBlock, lane);
    }
    commit_products();
    finish_products<0>(scores);
#pragma unroll
    for (int head = 0; head < Traits::kHeads; head++) {
      char* matrix = record_of(stage, head) + record.matrix(kOut);
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        if (j > warp) continue;
        Sums gated;
#pragma unroll
        for (int e = 0; e < 8; e++) gated[e / 4][e % 4] = scores[j][e / 4][e % 4];
        if (decayed || j == warp) gate_below(gated, sums + head * kTokens, warp, j, lane);
        Fragment packed;
        pack_block(packed, gated);
        store_block(matrix + lower_index(warp, j) * 512, lane, packed);
      }
    }
  }
};

}  // namespace linattn::cuda::chunks
