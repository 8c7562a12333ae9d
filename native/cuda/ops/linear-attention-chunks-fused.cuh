// Records of chunks with scalar decays and the additive rule, made in shared memory by the warps of a block that fetch,
// while the others multiply with the chunk before.
#pragma once
#include "cuda/device/exp2.cuh"
#include "cuda/ops/linear-attention-chunks-products.cuh"
#include "cuda/ops/linear-attention-chunks-state.cuh"

namespace linattn::cuda::chunks {

constexpr int kFetchBarrier = 5;  // past those of group_barrier

template <class Traits>
struct RecordMaker {
  static_assert(Traits::kFetchers == 4 * kWarp);
  static constexpr RecordLayout record = Traits::record;
  const ScanBlock<Traits>& block;
  float* sums;  // [heads of the block, 64] of log decays to base 2
  int warp, lane;

  // Of the head whose gates this warp makes, where it makes any.
  __device__ __forceinline__ float2 log_decays(int c, int end_chunk) const {
    if (warp >= Traits::kHeads || c >= end_chunk) return make_float2(0.0f, 0.0f);
    const Call& call = block.call;
    return two_given_log_decays(call, chunk_of(block.row, c), block.state_head + warp, c == 0 && call.fresh(block.n));
  }

  // Of a chunk whose tiles are seen.
  __device__ __forceinline__ void make(float2 log_decays, char* stage) const {
    Sums scores[kBlocks];
    if constexpr (!Traits::kEnds) multiply_queries(scores, stage);
    if (warp < Traits::kHeads) {
      float* own = sums + warp * kTokens;
      sum_of_lanes(make_float2(clamped(log_decays.x) * kLog2E, clamped(log_decays.y) * kLog2E), own);
      __syncwarp();
      auto* gates = reinterpret_cast<float*>(record_of(stage, warp) + record.gate());
      const float end = own[kTokens - 1];
#pragma unroll
      for (int t = lane; t < kTokens; t += kWarp) {
        gates[t] = exp2_fast(own[t]);
        gates[kTokens + t] = exp2_fast(end - own[t]);
      }
      if (lane == 0) gates[2 * kTokens] = exp2_fast(end);
    }
    if constexpr (!Traits::kEnds) {
      named_barrier<kFetchBarrier, Traits::kFetchers>();  // the sums are there
      finish_products<0>(scores);
      if (block.call.decay == LinearDecay::kNone) {
        store_scores<false>(scores, stage);
      } else {
        store_scores<true>(scores, stage);
      }
    }
  }

 private:
  __device__ __forceinline__ char* record_of(char* stage, int head) const {
    return stage + Traits::stage.given() + head * record.rest();
  }

  // q k', of which a warp has a row of blocks.
  __device__ __forceinline__ void multiply_queries(Sums (&scores)[kBlocks], const char* stage) const {
    const char* keys = stage + ScanBlock<Traits>::kKeys;
    begin_products();
    multiply_tiles<false>(scores, stage, warp * kBlock, keys, 0, lane);
#pragma unroll
    for (int i = 1; i < Traits::K / kBlock; i++) {
      multiply_tiles<true>(scores, stage, warp * kBlock, keys, i * kBlock, lane);
    }
    commit_products();
  }

  // As P of each head.
  template <bool kDecayed>
  __device__ __forceinline__ void store_scores(const Sums (&scores)[kBlocks], char* stage) const {
    const int row = lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (int head = 0; head < Traits::kHeads; head++) {
      const float* logs = sums + head * kTokens;
      const float late[2] = {kDecayed ? logs[warp * kBlock + row] : 0.0f,
                             kDecayed ? logs[warp * kBlock + row + 8] : 0.0f};
      char* matrix = record_of(stage, head) + record.matrix(kOut);
#pragma unroll
      for (int j = 0; j < kBlocks; j++) {
        if (j > warp) break;
        Sums gated;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float2 early = make_float2(0.0f, 0.0f);
          if (kDecayed) early = *reinterpret_cast<const float2*>(logs + j * kBlock + half * 8 + column);
#pragma unroll
          for (int e = 0; e < 4; e++) {
            const float by = kDecayed ? exp2_fast(late[e / 2] - (e % 2 ? early.y : early.x)) : 1.0f;
            const bool below = j < warp || row + e / 2 * 8 >= half * 8 + column + e % 2;
            gated[half][e] = below ? scores[j][half][e] * by : 0.0f;
          }
        }
        Fragment packed;
        pack_block(packed, gated);
        store_block(matrix + lower_index(warp, j) * 512, lane, packed);
      }
    }
  }
};

}  // namespace linattn::cuda::chunks
