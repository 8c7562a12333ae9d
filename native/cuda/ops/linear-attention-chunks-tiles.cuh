// Tiles of a chunk in shared memory: where their values lie, blocks of them in registers, and copies from global
// memory.
#pragma once
#include "cuda/ops/linear-attention-chunks.cuh"

namespace linattn::cuda::chunks {

// A tile is 64 tokens x K in panels of 64 channels; in a panel the eight 16-byte pieces of token t change places by
// t % 8, which keeps reads of 8 tokens free of bank conflicts (the 128-byte swizzle of Hopper's matrix instructions).
__host__ __device__ constexpr int tile_offset(int t, int piece) {
  return piece / 8 * kPanelBytes + t * 128 + ((piece % 8) ^ (t % 8)) * 16;
}

// Block of tokens [t0, t0 + 16) and channels [c0, c0 + 16) of a tile: X with rows = tokens.
__device__ __forceinline__ void load_tile_block(Fragment& to, const char* tile, int t0, int c0, int lane) {
  load_tiles_x4(to, tile + tile_offset(t0 + lane % 16, c0 / 8 + lane / 16));
}
// Its transpose, rows = channels.
__device__ __forceinline__ void load_tile_block_transposed(Fragment& to, const char* tile, int t0, int c0, int lane) {
  load_tiles_x4<true>(to, tile + tile_offset(t0 + lane % 8 + lane / 16 * 8, c0 / 8 + lane / 8 % 2));
}

// Copies `pieces` 16-byte pieces of each of a chunk's tokens into a tile of kPieces, in the background; the others and
// those of other tokens become zeros. `from`: the piece 0 of the chunk's first token. By `thread` of kThreads.
template <int kThreads, int kPieces>
__device__ __forceinline__ void load_tile_async(char* tile, const bfloat16* from, int64_t stride, const Chunk& chunk,
                                                int pieces, int thread) {
  constexpr int kAtOnce = kThreads % kPieces == 0 ? kPieces : 8;  // of a token
  static_assert(kThreads % kAtOnce == 0 && kPieces % kAtOnce == 0);
  constexpr int kStep = kThreads / kAtOnce;  // tokens
  const int first = thread / kAtOnce;
  if constexpr (kPieces == kAtOnce && kStep % 8 == 0 && kStep <= kTokens) {
    // Tokens kStep apart have their pieces at the same places.
    const int piece = thread % kAtOnce;
    const bool own = piece < pieces;
    char* to = tile + tile_offset(first, piece);
    const bfloat16* at = from + (first - chunk.skip) * stride + piece * 8;
    if (chunk.count == kTokens) {
#pragma unroll
      for (int i = 0; i < kTokens; i += kStep) {
        copy_async_16(to + i * 128, own ? at : from, own);
        at += kStep * stride;
      }
      return;
    }
#pragma unroll 1
    for (int t = first; t < kTokens; t += kStep) {
      const bool present = own && t >= chunk.skip && t < chunk.skip + chunk.count;
      copy_async_16(to, present ? at : from, present);
      at += kStep * stride;
      to += kStep * 128;
    }
  } else {
#pragma unroll
    for (int piece = thread % kAtOnce; piece < kPieces; piece += kAtOnce) {
      const bfloat16* at = from + (first - chunk.skip) * stride + piece * 8;
#pragma unroll
      for (int i = 0; i < kTokens; i += kStep) {
        const int t = first + i;
        if (kStep > kTokens && t >= kTokens) break;
        const bool present = t >= chunk.skip && t < chunk.skip + chunk.count && piece < pieces;
        copy_async_16(tile + tile_offset(t, piece), present ? at : from, present);
        at += kStep * stride;
      }
    }
  }
}

// Copies what lies together, in the background.
template <int kThreads, int kBytes>
__device__ __forceinline__ void copy_record_async(char* to, const char* from, int thread) {
  const int at = thread * 16;
#pragma unroll
  for (int i = 0; i < kBytes; i += kThreads * 16) {
    if (i + kThreads * 16 <= kBytes || at + i < kBytes) copy_async_16(to + at + i, from + at + i);
  }
}

}  // namespace linattn::cuda::chunks
