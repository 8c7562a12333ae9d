// Tiles of 16-bit rows in shared memory for the matrix kernels of softmaxAttention. Pieces of 8 values (16 bytes) of
// row r lie at piece ^ (r % 8), so that neither the copies nor load_tiles_x4 meet bank conflicts.
#pragma once
#include "cuda/device/mma.cuh"
#include "cuda/ops/softmax-attention.cuh"

namespace linattn::cuda {

constexpr int kHalfPiece = 8;

template <int kWidth>
__device__ __forceinline__ int tile_place(int row, int piece) {
  return row * kWidth + (piece ^ row % 8) * kHalfPiece;
}

// Column d, a multiple of 16, of a row whose pieces are moved by `swizzle`; few different sums for the compiler to
// keep.
__device__ __forceinline__ int swizzled(int d, int swizzle) { return d / 64 * 64 + (d % 64 ^ swizzle); }

// Keys (or values, `apart` elements behind) of one head from the pages; row r lies at offsets[r], -1 becomes zeros, as
// do the columns beyond `width`. All threads of the block.
template <int kWidth, int kKeys, int kThreads, class T>
__device__ __forceinline__ void load_keys(T* tile, const T* pages, const int64_t* offsets, int64_t apart, int width) {
  constexpr int kPieces = kWidth / kHalfPiece, kRowsAtOnce = kThreads / kPieces;
  static_assert(kThreads % kPieces == 0 && kKeys % kRowsAtOnce == 0);
  const int piece = threadIdx.x % kPieces, first = threadIdx.x / kPieces;
  const bool inside = piece * kHalfPiece < width;
#pragma unroll
  for (int i = 0; i < kKeys; i += kRowsAtOnce) {
    const int64_t offset = offsets[first + i];
    const bool present = inside && offset >= 0;
    copy_async_16(tile + tile_place<kWidth>(first + i, piece),
                  present ? pages + offset + apart + piece * kHalfPiece : pages, present);
  }
}

// Query rows [begin, begin + rows) of a row and key head; zeros up to kRows.
template <int kWidth, int kRows, int kThreads, class T>
__device__ __forceinline__ void load_queries(T* tile, const AttentionView& x, const AttentionRow& row, int kv_head,
                                             int begin, int rows) {
  constexpr int kPieces = kWidth / kHalfPiece;
  for (int i = threadIdx.x; i < kRows * kPieces; i += kThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool present = r < rows && piece * kHalfPiece < x.width;
    const OutputRow at = output_row(x, row, kv_head, begin + (r < rows ? r : 0));
    const T* from = static_cast<const T*>(x.q) + at.token * x.q_stride + at.head * x.width;
    copy_async_16(tile + tile_place<kWidth>(r, piece), present ? from + piece * kHalfPiece : from, present);
  }
}

}  // namespace linattn::cuda
