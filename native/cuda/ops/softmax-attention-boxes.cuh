// Keys and values from their pages to shared memory by the copy engine of Hopper, for the kernels of softmaxAttention:
// tiles as the matrix instructions want them, in boxes of keys that lie in one page.
#pragma once
#include <numeric>

#include "cuda/device/bulk.cuh"
#include "cuda/device/hopper.cuh"
#include "cuda/device/stage-barrier.cuh"
#include "cuda/device/wgmma.cuh"
#ifndef LINATTN_CUDA_EMULATOR
#include "cuda/device/tensor-map.cuh"
#endif
#include "cuda/ops/softmax-attention-mma.cuh"

namespace linattn::cuda {

// As a kernel argument.
struct KeyBoxes {
#ifndef LINATTN_CUDA_EMULATOR
  CUtensorMap pages;
#endif
  int keys;  // of a box
};

// Whether the op has keys that boxes hold.
inline bool has_key_boxes(const AttentionView& x, [[maybe_unused]] const Cuda& cuda) {
#ifndef LINATTN_CUDA_EMULATOR
  if (cuda.properties.capability != 90) return false;
#endif
  const bool width = x.width == 64 || x.width == 128 || x.width == 256;
  return width && x.page_tokens % kTileRows == 0;
}

// For tiles of `tile_keys`; false where the driver cannot.
inline bool make_key_boxes(const AttentionView& x, int tile_keys, KeyBoxes& boxes) {
  boxes.keys = std::gcd(tile_keys, x.page_tokens);
#ifdef LINATTN_CUDA_EMULATOR
  return true;
#else
  const uint64_t token = static_cast<uint64_t>(x.kv_heads) * x.width, page_tokens = x.page_tokens;
  // Columns of a tile of the instructions, its rows, tiles of all heads, tiles with the keys and then the values of a
  // page, pages.
  const TensorBoxes tensor{
      x.pages,
      {kTileColumns, kTileRows, token / kTileColumns, 2 * page_tokens / kTileRows, static_cast<uint64_t>(x.page_count)},
      {2 * token, 2 * kTileColumns, 2 * token * kTileRows, 2 * static_cast<uint64_t>(x.page_stride)},
      {kTileColumns, kTileRows, static_cast<uint32_t>(x.width / kTileColumns),
       static_cast<uint32_t>(boxes.keys / kTileRows), 1}};
  return make_tensor_map(tensor, boxes.pages);
#endif
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(LINATTN_CUDA_EMULATOR)

// A lane's box of a tile.
struct KeyBox {
  bool copied;
  int page;  // or the number of pages: zeros
  int tile;  // of its page, where the box begins
};

// The box of each lane in the tile of kKeys keys from first_key on, of which [begin_key, end_key) are seen. A box that
// has no page is reported.
template <int kKeys>
__device__ __forceinline__ KeyBox find_key_box(const AttentionView& x, const KeyBoxes& boxes, const AttentionRow& row,
                                               int first_key, int begin_key, int end_key) {
  const int lane = threadIdx.x % kWarp, key = first_key + lane * boxes.keys;
  KeyBox box{lane < kKeys / boxes.keys, x.page_count, key % x.page_tokens / kTileRows};
  if (box.copied && key + boxes.keys > begin_key && key < end_key) {
    const int page = key_page(x, row, key);
    if (page >= 0) box.page = page;
  }
  return box;
}

// Keys, or `values`, of a head; their bytes are announced in the same phase.
template <int kWidth, class T>
__device__ __forceinline__ void copy_keys(T* to, const AttentionView& x, const KeyBoxes& boxes, const KeyBox& box,
                                          int kv_head, bool values, ByteBarrier& barrier) {
#ifdef LINATTN_CUDA_EMULATOR
  const bool present = box.page < x.page_count;
  const T* const from = static_cast<const T*>(x.pages) + (present ? box.page * x.page_stride : 0) +
                        (values ? values_apart(x) : 0) + kv_head * kWidth;
  for (int r = 0; r < boxes.keys; r++) {
    const T* const key = from + static_cast<int64_t>(box.tile * kTileRows + r) * x.kv_heads * kWidth;
    for (int piece = 0; piece < kWidth / kHalfPiece; piece++) {
      *reinterpret_cast<uint4*>(to + wgmma_place<kWidth>(r, piece)) =
          present ? *reinterpret_cast<const uint4*>(key + piece * kHalfPiece) : uint4{0, 0, 0, 0};
    }
  }
  barrier.step(0, -static_cast<int32_t>(boxes.keys * kWidth * sizeof(T)));
#else
  copy_box(to, boxes.pages,
           {0, 0, kv_head * (kWidth / kTileColumns), values * (x.page_tokens / kTileRows) + box.tile, box.page},
           barrier);
#endif
}

// The same for the tile of find_key_box(). By a warp.
template <int kWidth, class T>
__device__ __forceinline__ void copy_key_box(T* tile, const AttentionView& x, const KeyBoxes& boxes, const KeyBox& box,
                                             int kv_head, bool values, ByteBarrier& barrier) {
  if (!box.copied) return;
  copy_keys<kWidth>(tile + threadIdx.x % kWarp * boxes.keys * kWidth, x, boxes, box, kv_head, values, barrier);
}

// Zeros for the values of a tile that no query row sees, which may be anything: a weight of 0 does not keep out a NaN.
// By so many threads, from a multiple of them on; a barrier of them must follow where this is true.
template <int kKeys, int kWidth, int kThreads, class T>
__device__ __forceinline__ bool clear_unseen(T* values, int first_key, int begin_key, int end_key) {
  constexpr int kPieces = kWidth / kHalfPiece;
  if (first_key >= begin_key && first_key + kKeys <= end_key) return false;
  for (int i = threadIdx.x % kThreads; i < kKeys * kPieces; i += kThreads) {
    const int r = i / kPieces, key = first_key + r;
    if (key >= begin_key && key < end_key) continue;
    *reinterpret_cast<uint4*>(values + wgmma_place<kWidth>(r, i % kPieces)) = uint4{0, 0, 0, 0};
  }
#ifndef LINATTN_CUDA_EMULATOR
  wgmma_publish();
#endif
  return true;
}

#endif

}  // namespace linattn::cuda
