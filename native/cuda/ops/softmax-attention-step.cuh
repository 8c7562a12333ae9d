// The keys of a split, for the attention of one token: which they are, where they lie in shared memory, how they come.
#pragma once
#include "cuda/device/bulk.cuh"
#include "cuda/ops/softmax-attention-decode.cuh"
#include "cuda/ops/softmax-attention-step-merge.cuh"

namespace linattn::cuda {

// Tiles of kKeys keys, as the kernel that runs the op alone has them; half tiles are loaded, and so many are there or
// under way. kWarps multiply, one more finds out where the keys are that do not come at the beginning.
template <class TGiven, int kWidthGiven, int kKeysGiven, int kWarpsGiven>
struct StepShape {
  using T = TGiven;
  static constexpr int kWidth = kWidthGiven, kKeys = kKeysGiven, kWarps = kWarpsGiven;
  static constexpr int kMultipliers = kWarps * kWarp, kThreads = kMultipliers + kWarp;
  static constexpr int kHalf = kKeys / 2, kKeyHalves = 3, kValueHalves = 4;
  static constexpr int kFound = 8;                     // halves whose places are known
  static constexpr int kStride = kWidth + kHalfPiece;  // no bank conflicts
};

// Where a key is in its head's part of the pages, if it is there.
constexpr int64_t kUnseenKey = -1, kNewKey = -2;
template <class Shape>
struct StepShared {
  using T = typename Shape::T;
  union {
    alignas(16) T keys[Shape::kKeyHalves * Shape::kHalf * Shape::kStride];
    MergeShared<Shape> merge;  // when no more keys come
  };
  T values[Shape::kValueHalves * Shape::kHalf * Shape::kStride];
  T queries[16 * Shape::kStride];
  T new_key[Shape::kWidth], new_value[Shape::kWidth];
  DecodeRows<T, Shape::kWidth, 1, Shape::kKeys, Shape::kWarps> rows;
  int64_t places[Shape::kFound][Shape::kHalf];
  float cosine[Shape::kWidth / 2], sine[Shape::kWidth / 2];
  ByteBarrier keys_full[Shape::kKeyHalves], values_full[Shape::kValueHalves];
  int new_page;  // of the new token
  bool stale;
};

// The keys of a split, half a tile after half a tile.
template <class Shape>
struct StepKeys {
  int begin, end, first, fresh;  // of the tiles; of the keys that are seen, of which the last one is the new one
  int halves;

  StepKeys() = default;
  __device__ StepKeys(const AttentionView& x, const AttentionRow& row, const KeySplits& splits, int split) {
    begin = (splits.first_span + split * splits.each) * kSpanKeys;
    end = min(begin + splits.each * kSpanKeys, row.end_key());
    if (split >= splits.count()) end = begin;
    first = max(begin, row.begin_key(x.window));
    fresh = row.position;
    halves = 2 * quotient_up(end - begin, Shape::kKeys);
  }

  __device__ int tiles() const { return halves / 2; }
  __device__ bool has_new() const { return fresh >= begin && fresh < end; }
  __device__ bool stored(int key) const { return key >= first && key < min(end, fresh); }
  __device__ bool is_new(int key) const { return key == fresh && has_new(); }
  __device__ uint32_t stored_bytes(int half) const {
    const int from = begin + half * Shape::kHalf, to = from + Shape::kHalf;
    const int keys = min(min(end, fresh), to) - max(first, from);
    return max(0, keys) * Shape::kWidth * static_cast<uint32_t>(sizeof(typename Shape::T));
  }
};

// Where row r of a half is in shared memory, while it is there.
template <class Shape>
__device__ __forceinline__ typename Shape::T* half_row(StepShared<Shape>& shared, int half, int r, bool value) {
  const int slot = value ? half % Shape::kValueHalves : half % Shape::kKeyHalves;
  return (value ? shared.values : shared.keys) + (slot * Shape::kHalf + r) * Shape::kStride;
}

// The same of the new key or value of a split that has it.
template <class Shape>
__device__ __forceinline__ typename Shape::T* new_row(StepShared<Shape>& shared, const StepKeys<Shape>& keys,
                                                      bool value) {
  const int apart = keys.fresh - keys.begin;
  return half_row(shared, apart / Shape::kHalf, apart % Shape::kHalf, value);
}

__device__ __forceinline__ bool is_page(const AttentionView& x, int page) {
  return static_cast<unsigned>(page) < static_cast<unsigned>(x.page_count);
}

// Where a key begins in its page, which is another one where the table has none.
__device__ __forceinline__ int64_t place_of(const AttentionView& x, int page, int key) {
  const int in_page = key - quotient(key, x.page_tokens) * x.page_tokens;
  return (is_page(x, page) ? page * x.page_stride : 0) + static_cast<int64_t>(in_page) * x.kv_heads * x.width;
}

// Row r of one of the first halves, key or value, but for the new token's: by the copy engine, or zeros.
template <class Shape>
__device__ __forceinline__ void load_first_row(const AttentionView& x, StepShared<Shape>& shared,
                                               const StepKeys<Shape>& keys, int kv_head, int half, int r, bool value,
                                               int page) {
  using T = typename Shape::T;
  const int key = keys.begin + half * Shape::kHalf + r;
  T* const to = half_row(shared, half, r, value);
  ByteBarrier& full = (value ? shared.values_full : shared.keys_full)[half];
  if (r == 0) full.expect(keys.stored_bytes(half));
  if (half >= keys.halves) return;
  if (keys.stored(key)) {
    const T* const from = static_cast<const T*>(x.pages) + place_of(x, page, key) + kv_head * Shape::kWidth;
    copy_bulk(to, from + (value ? values_apart(x) : 0), Shape::kWidth * sizeof(T), full);
    return;
  }
  if (keys.is_new(key)) shared.new_page = page;
  if (!value) return;
#pragma unroll 4
  for (int i = 0; i < Shape::kWidth; i += kHalfPiece) *reinterpret_cast<uint4*>(to + i) = uint4{0, 0, 0, 0};
}

// Finds where the keys of two halves are, by a warp; true where a page is missing.
template <class Shape>
__device__ __forceinline__ bool find_halves(const AttentionView& x, StepShared<Shape>& shared,
                                            const StepKeys<Shape>& keys, const AttentionRow& row, int half) {
  bool missing = false;
#pragma unroll
  for (int i = 0; i < Shape::kKeys; i += kWarp) {
    const int r = i + static_cast<int>(threadIdx.x) % kWarp, key = keys.begin + half * Shape::kHalf + r;
    int64_t place = kUnseenKey;
    if (keys.stored(key) || keys.is_new(key)) {
      const int page = read_now(row.table + page_column(x, key));
      missing |= !is_page(x, page);
      place = keys.is_new(key) ? kNewKey : place_of(x, page, key);
      if (keys.is_new(key)) shared.new_page = page;
    }
    shared.places[(half + r / Shape::kHalf) % Shape::kFound][r % Shape::kHalf] = place;
  }
  return missing;
}

// Two halves that were found, keys or values. By all threads that multiply.
template <class Shape>
__device__ __forceinline__ void load_halves(const AttentionView& x, StepShared<Shape>& shared,
                                            const StepKeys<Shape>& keys, int kv_head, int half, bool value) {
  using T = typename Shape::T;
  constexpr int kPieces = Shape::kWidth / kHalfPiece, kAtOnce = Shape::kMultipliers / kPieces;
  const int thread = static_cast<int>(threadIdx.x), column = thread % kPieces * kHalfPiece;
  const T* const pages =
      static_cast<const T*>(x.pages) + (value ? values_apart(x) : 0) + kv_head * Shape::kWidth + column;
#pragma unroll 4
  for (int r = thread / kPieces; r < Shape::kKeys; r += kAtOnce) {
    const int of = half + r / Shape::kHalf, in_half = r % Shape::kHalf;
    if (of >= keys.halves) break;
    const int64_t place = shared.places[of % Shape::kFound][in_half];
    T* const to = half_row(shared, of, in_half, value) + column;
    if (place == kNewKey) {
      *reinterpret_cast<uint4*>(to) =
          *reinterpret_cast<const uint4*>((value ? shared.new_value : shared.new_key) + column);
    } else {
      copy_async_16(to, pages + (place >= 0 ? place : 0), place >= 0);
    }
  }
}

}  // namespace linattn::cuda
