// Products of a warpgroup, 64 state rows as the left fragments of its 4 warps, with a tile in shared memory: by wgmma,
// which works in the background until finish_products(), and elsewhere by the matrix instructions of each warp.
#pragma once
#include "cuda/device/wgmma.cuh"
#include "cuda/ops/linear-attention-chunks.cuh"

namespace linattn::cuda::chunks {

// Before products of sums or fragments that other instructions wrote.
__device__ __forceinline__ void begin_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  wgmma_begin();
#endif
}

__device__ __forceinline__ void commit_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  wgmma_commit();
#endif
}

// Until at most `pending` committed groups are under way, of which none writes these sums.
template <int pending, int kCount>
__device__ __forceinline__ void finish_products([[maybe_unused]] Sums (&sums)[kCount]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  wgmma_wait<pending>();
  wgmma_settled(reinterpret_cast<float (&)[kCount * 8]>(sums));
#endif
}

// Registers of each thread of a warpgroup from here on, of which others give or take as many.
template <int kRegisters, bool more>
__device__ __forceinline__ void set_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  if constexpr (more) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
  }
#endif
}

// What this thread wrote into shared memory is seen by the products that follow a barrier after this.
__device__ __forceinline__ void publish_to_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  wgmma_publish();
#endif
}

// sums = left tile', with `add` sums += left tile': columns are the tile's 64 tokens, `left` has the channels
// [c0, c0 + 16).
template <bool add>
__device__ __forceinline__ void multiply_tokens(Sums (&sums)[kBlocks], const Fragment& left, const char* tile, int c0,
                                                [[maybe_unused]] int lane) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const uint64_t right = wgmma_operand<kTokens>(tile + c0 / 64 * kPanelBytes);
  wgmma<bfloat16, false>(reinterpret_cast<float (&)[kBlocks * 8]>(sums), left, wgmma_further(right, c0 % 64 * 2), add);
#else
#pragma unroll
  for (int j = 0; j < kBlocks; j++) {
    if constexpr (!add) {
#pragma unroll
      for (int e = 0; e < 8; e++) sums[j][e / 4][e % 4] = 0.0f;
    }
    Fragment right;
    load_tile_block(right, tile, j * kBlock, c0, lane);
    multiply(sums[j], left, right);
  }
#endif
}

// sums = left right', of two tiles with the channels [c0, c0 + 16): rows are the tokens [r0, r0 + 16) of `left` for the
// warp, four of which take 64; with `add` sums += it.
template <bool add>
__device__ __forceinline__ void multiply_tiles(Sums (&sums)[kBlocks], const char* left, [[maybe_unused]] int r0,
                                               const char* right, int c0, [[maybe_unused]] int lane) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const auto operand = [&](const char* tile) {
    return wgmma_further(wgmma_operand<kTokens>(tile + c0 / 64 * kPanelBytes), c0 % 64 * 2);
  };
  wgmma<bfloat16, false>(reinterpret_cast<float (&)[kBlocks * 8]>(sums), operand(left), operand(right), add);
#else
  Fragment rows;
  load_tile_block(rows, left, r0, c0, lane);
  multiply_tokens<add>(sums, rows, right, c0, lane);
#endif
}

// sums += left tile: columns are the tile's channels [c0, c0 + 64), `left` has the tokens [t0, t0 + 16).
__device__ __forceinline__ void multiply_channels(Sums (&sums)[kBlocks], const Fragment& left, const char* tile, int t0,
                                                  int c0, [[maybe_unused]] int lane) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const uint64_t right = wgmma_operand<kTokens>(tile + c0 / 64 * kPanelBytes);
  wgmma<bfloat16, true>(reinterpret_cast<float (&)[kBlocks * 8]>(sums), left, wgmma_further(right, t0 * 128), true);
#else
#pragma unroll
  for (int j = 0; j < kBlocks; j++) {
    Fragment right;
    load_tile_block_transposed(right, tile, t0, c0 + j * kBlock, lane);
    multiply(sums[j], left, right);
  }
#endif
}

}  // namespace linattn::cuda::chunks
