// The keys of a split, for the attention of one token: which they are, where they lie in shared memory, how they come.
#pragma once
#include <algorithm>

#include "cuda/ops/softmax-attention-boxes.cuh"
#include "cuda/ops/softmax-attention-decode.cuh"
#include "cuda/ops/softmax-attention-step-merge.cuh"

namespace linattn::cuda {

// Tiles of kKeys keys, as the kernel that runs the op alone has them. They come in halves: two of keys and two of
// values for each tile, one after the other, each to the next of kSlots slots. kWarps multiply, one more loads.
template <class TGiven, int kWidthGiven, int kKeysGiven, int kWarpsGiven>
struct StepShape {
  using T = TGiven;
  static constexpr int kWidth = kWidthGiven, kKeys = kKeysGiven, kWarps = kWarpsGiven;
  static constexpr int kMultipliers = kWarps * kWarp, kThreads = kMultipliers + kWarp;
  static constexpr int kHalf = kKeys / 2, kHalfValues = kHalf * kWidth;
  static constexpr int kHalves = 4;  // of a tile
  // Room for the blocks of a product beside it, so that it can begin before they end.
  static constexpr int kSlots = std::min(4 * kHalves, 7 * 256 / kWidth);
  static constexpr int kStride = kWidth + kHalfPiece;  // of queries: no bank conflicts
};

template <class Shape>
struct StepShared {
  using T = typename Shape::T;
  union {
    alignas(1024) T slots[Shape::kSlots][Shape::kHalfValues];
    MergeShared<Shape> merge;  // when no more keys come
  };
  T queries[16 * Shape::kStride];
  alignas(16) T new_row[2][Shape::kWidth];  // key and value of the new token
  DecodeRows<T, Shape::kWidth, 1, Shape::kKeys, Shape::kWarps> rows;
  float cosine[Shape::kWidth / 2], sine[Shape::kWidth / 2];
  RowWords guess;
  int arguments;
  bool stale;
};

template <class Shape>
struct StepBarriers {
  ByteBarrier full[Shape::kSlots], empty[Shape::kSlots];
};

// The keys of a split.
template <class Shape>
struct StepKeys {
  int begin, end, first, fresh;  // of the tiles; of the keys that are seen, of which the last one is the new one
  int tiles;

  StepKeys() = default;
  __device__ StepKeys(const AttentionView& x, const AttentionRow& row, const KeySplits& splits, int split) {
    begin = (splits.first_span + split * splits.each) * kSpanKeys;
    end = min(begin + splits.each * kSpanKeys, row.end_key());
    if (split >= splits.count()) end = begin;
    first = max(begin, row.begin_key(x.window));
    fresh = row.position;
    tiles = quotient_up(end - begin, Shape::kKeys);
  }

  __device__ int halves() const { return tiles * Shape::kHalves; }
  __device__ bool has_new() const { return fresh >= begin && fresh < end; }
};

__device__ __forceinline__ bool is_page(const AttentionView& x, int page) {
  return static_cast<unsigned>(page) < static_cast<unsigned>(x.page_count);
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(LINATTN_CUDA_EMULATOR)

// The box of a lane in a tile: tiles have up to 8, lanes 8 and on those of the tiles that follow.
template <class Shape>
struct StepBox {
  static constexpr int kMost = Shape::kKeys / kTileRows;
  int tile, half, in_half, key;  // of its tile, keys or values; the first key
  const int32_t* entry;          // of the table, null: no key of it is seen

  __device__ StepBox(const AttentionView& x, const KeyBoxes& boxes, const AttentionRow& row,
                     const StepKeys<Shape>& keys, int first_tile) {
    const int lane = threadIdx.x % kWarp, in_tile = lane % kMost, of_half = quotient(Shape::kHalf, boxes.keys);
    tile = first_tile + lane / kMost;
    half = quotient(in_tile, of_half);
    in_half = in_tile - half * of_half;
    key = keys.begin + tile * Shape::kKeys + in_tile * boxes.keys;
    const bool seen = half < 2 && tile < keys.tiles && key + boxes.keys > keys.first && key < keys.end;
    entry = seen ? row.table + page_column(x, key) : nullptr;
  }

  // Half h of its tile, the first two of keys, to the slot that comes.
  __device__ void copy(const AttentionView& x, StepShared<Shape>& shared, StepBarriers<Shape>& barriers,
                       const KeyBoxes& boxes, int kv_head, int h, int page) const {
    if (half != h % 2) return;
    const int slot = (tile * Shape::kHalves + h) % Shape::kSlots;
    const int in_page = key - quotient(key, x.page_tokens) * x.page_tokens;
    const KeyBox box{true, entry && is_page(x, page) ? page : x.page_count, in_page / kTileRows};
    copy_keys<Shape::kWidth>(shared.slots[slot] + in_half * boxes.keys * Shape::kWidth, x, boxes, box, kv_head, h >= 2,
                             barriers.full[slot]);
  }
};

template <class Shape>
constexpr uint32_t kStepHalfBytes = Shape::kHalfValues * sizeof(typename Shape::T);

// The halves that there are slots for, by a warp. Boxes are those of the first tiles.
template <class Shape>
__device__ __forceinline__ void load_first(const AttentionView& x, StepShared<Shape>& shared,
                                           StepBarriers<Shape>& barriers, const KeyBoxes& boxes,
                                           const StepKeys<Shape>& keys, const StepBox<Shape>& box, int kv_head,
                                           int page) {
  const int lane = threadIdx.x % kWarp;
  if (lane < Shape::kSlots) barriers.full[lane].expect(lane < keys.halves() ? kStepHalfBytes<Shape> : 0);
  __syncwarp();
  if (box.tile >= keys.tiles) return;
#pragma unroll
  for (int h = 0; h < Shape::kHalves; h++) {
    if (box.tile * Shape::kHalves + h < Shape::kSlots) box.copy(x, shared, barriers, boxes, kv_head, h, page);
  }
}

// All that come later, by a warp. True for a lane that found no page.
template <class Shape>
__device__ __forceinline__ bool load_rest(const AttentionView& x, StepShared<Shape>& shared,
                                          StepBarriers<Shape>& barriers, const KeyBoxes& boxes, const AttentionRow& row,
                                          const StepKeys<Shape>& keys, int kv_head) {
  constexpr int kSlots = Shape::kSlots, kHalves = Shape::kHalves;
  const int lane = threadIdx.x % kWarp;
  bool missing = false;
  const auto read = [](const StepBox<Shape>& box) { return box.entry ? read_now(box.entry) : 0; };
  StepBox<Shape> next(x, boxes, row, keys, kSlots / kHalves);
  int next_page = read(next);
#pragma unroll 1
  for (int tile = kSlots / kHalves; tile < keys.tiles; tile++) {
    const StepBox<Shape> box = next;
    const int page = next_page;
    next = StepBox<Shape>(x, boxes, row, keys, tile + 1);
    next_page = read(next);
#pragma unroll
    for (int h = 0; h < kHalves; h++) {
      const int half = tile * kHalves + h, slot = half % kSlots;
      if (half < kSlots) continue;
      barriers.empty[slot].wait(half / kSlots - 1);
      if (lane == 0) barriers.full[slot].expect(kStepHalfBytes<Shape>);
      __syncwarp();
      if (lane < StepBox<Shape>::kMost) box.copy(x, shared, barriers, boxes, kv_head, h, page);
    }
    missing |= box.entry && !is_page(x, page);
  }
  return missing;
}

#endif

}  // namespace linattn::cuda
