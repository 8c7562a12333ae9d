// A block a split of the keys of a key head. Before the kernels in front have ended it guesses where the keys are, and
// has the copy engine load them; then it makes the queries, the new key and value. Blocks after those of a head's
// splits merge what these leave for them, word by word as it comes. The arithmetic is that of the kernels of
// softmaxAttention for decode rows and of their merge.
#include "cuda/device/bulk.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/fusions.h"
#include "cuda/ops/norm-rope.cuh"
#include "cuda/ops/softmax-attention-decode.cuh"
#include "cuda/ops/softmax-attention-step.h"

namespace linattn::cuda {
namespace {

constexpr int kMostGroup = 16;  // query heads of a key head
constexpr int kMostSplits = 64;
constexpr int kMergeGroups = 16;  // sums over every 16th split
constexpr int kMostParts = 2112;  // of query heads and splits
constexpr int kMostWidth = 256;
#ifdef LINATTN_CUDA_EMULATOR
constexpr int kMostMergers = 1;  // blocks run one after the other
#else
constexpr int kMostMergers = 4;  // blocks of a key head
#endif

// What the splits leave: of each query head and split the sums of weighted values, then maximum and sum. A word is 0
// when there is nothing, between kernels all are.
__device__ uint4 part_words[kMostParts * kMostWidth / 4];
__device__ uint32_t part_maxima[kMostParts], part_sums[kMostParts];

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
struct MergeShared {
  float weights[kMostSplits], sums[kMostSplits], max[kMostSplits];
  float4 totals[kMergeGroups][Shape::kWidth / 4];
};

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

template <class T>
struct StepTurns {
  HeadTurn<T> queries, keys;
  int pairs;
  const float* frequencies;
  Fault* fault;
};

// What lies there when it is called, every time.
__device__ __forceinline__ int32_t read_now(const int32_t* from) {
#ifdef LINATTN_CUDA_EMULATOR
  return *from;
#else
  int32_t value;
  asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
#endif
}

// What threads have written to shared memory comes before what the copy engine will write there. By these threads.
__device__ __forceinline__ void order_before_copies() {
#ifndef LINATTN_CUDA_EMULATOR
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

__device__ __forceinline__ RowWords read_row(const AttentionView& x) {
  const int32_t* const offsets = x.sequences.offsets;
  return {read_now(offsets), read_now(offsets + 1), read_now(x.sequences.positions), read_now(x.table_rows)};
}

__device__ __forceinline__ bool same(const RowWords& a, const RowWords& b) {
  return a.first == b.first && a.end == b.end && a.position == b.position && a.table_row == b.table_row;
}

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

// A number as a word that is not 0: the bits of one NaN are those of another.
__device__ __forceinline__ uint32_t word_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits == 0xffffffffu ? 0x80000000u : ~bits;
}

__device__ __forceinline__ float number_of(uint32_t word) {
  const uint32_t bits = ~word;
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// What is there now, as far as other blocks have written it.
__device__ __forceinline__ uint4 look(const uint4* from) {
#ifdef LINATTN_CUDA_EMULATOR
  return *from;
#else
  uint4 words;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from)
               : "memory");
  return words;
#endif
}

__device__ __forceinline__ uint32_t look(const uint32_t* from) {
  return static_cast<uint32_t>(read_now(reinterpret_cast<const int32_t*>(from)));
}

__device__ __forceinline__ bool complete(const uint4& words) {
  return words.x != 0 && words.y != 0 && words.z != 0 && words.w != 0;
}
__device__ __forceinline__ bool complete(uint32_t word) { return word != 0; }

// The output of a query head from the parts of all splits; `part` is that of the first one. kDeep: of every 16th split,
// there are so many at most. `dry`: fetches the code, to no effect.
template <int kDeep, class Shape>
LINATTN_NO_INLINE __device__ void merge_parts(const AttentionView& x, int splits, int part, OutputRow at,
                                              MergeShared<Shape>& shared, bool dry) {
  using T = typename Shape::T;
  constexpr int kColumns = Shape::kWidth / 4, kTeams = Shape::kMultipliers / kColumns, kEach = kMergeGroups / kTeams;
  const int thread = static_cast<int>(threadIdx.x), column = thread % kColumns, first = thread / kColumns * kEach;
  uint4* const words = part_words + static_cast<int64_t>(part) * kColumns + column;
  const bool multiplies = thread < Shape::kMultipliers;
  uint4 got[kDeep][kEach]{};
  uint32_t max = 0, sum = 0;
  const auto for_own = [&](auto body) {
#pragma unroll
    for (int d = 0; d < kDeep; d++) {
#pragma unroll
      for (int g = 0; g < kEach; g++) {
        const int s = d * kMergeGroups + first + g;
        if (multiplies && s < splits) body(got[d][g], words + s * kColumns);
      }
    }
    if (thread < splits) {
      body(max, part_maxima + part + thread);
      body(sum, part_sums + part + thread);
    }
  };
#pragma unroll 1
  for (bool all = false; !all;) {
    for_own([](auto& word, auto* from) {
      if (!complete(word)) word = look(from);
    });
    all = true;
    if (dry) break;
    for_own([&](const auto& word, auto*) { all &= complete(word); });
  }
  if (!dry) for_own([](auto& word, auto* from) { *from = std::remove_reference_t<decltype(word)>{}; });
  if (thread < splits) {
    shared.max[thread] = number_of(max);
    shared.sums[thread] = number_of(sum);
  }
  __syncthreads();
  const int lane = thread % kWarp;
  const float top = warp_max(fmaxf(lane < splits ? shared.max[lane] : -INFINITY,
                                   lane + kWarp < splits ? shared.max[lane + kWarp] : -INFINITY));
  if (thread < splits) shared.weights[thread] = shared.sums[thread] == 0 ? 0.0f : expf(shared.max[thread] - top);
  __syncthreads();
#pragma unroll
  for (int g = 0; g < kEach; g++) {
    float4 total{0, 0, 0, 0};
#pragma unroll
    for (int d = 0; d < kDeep; d++) {
      const int s = d * kMergeGroups + first + g;
      if (s >= splits) continue;
      const float weight = shared.weights[s];
      if (weight == 0) continue;
      total.x += weight * number_of(got[d][g].x);
      total.y += weight * number_of(got[d][g].y);
      total.z += weight * number_of(got[d][g].z);
      total.w += weight * number_of(got[d][g].w);
    }
    if (multiplies) shared.totals[first + g][column] = total;
  }
  __syncthreads();
  if (thread < kColumns && !dry) {
    float4 all = shared.totals[0][thread];
#pragma unroll
    for (int g = 1; g < kMergeGroups; g++) {
      const float4 total = shared.totals[g][thread];
      all.x += total.x;
      all.y += total.y;
      all.z += total.z;
      all.w += total.w;
    }
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += shared.weights[s] * shared.sums[s];
    const float factor = finish_row(x, at, top, sum, thread == 0);
    Pack<T, 4> out;
    out.value[0] = from_float<T>(all.x * factor);
    out.value[1] = from_float<T>(all.y * factor);
    out.value[2] = from_float<T>(all.z * factor);
    out.value[3] = from_float<T>(all.w * factor);
    *reinterpret_cast<Pack<T, 4>*>(static_cast<T*>(x.out) + at.token * x.out_stride + at.head * Shape::kWidth +
                                   4 * thread) = out;
  }
  __syncthreads();
}

// The turned queries of the block's head, and its new key and value, in shared memory; what norms and rotations write.
template <class Shape>
__device__ __forceinline__ void make_new(const AttentionView& x, const StepTurns<typename Shape::T>& turns,
                                         StepShared<Shape>& shared, const StepKeys<Shape>& keys, int kv_head,
                                         bool stores) {
  using T = typename Shape::T;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const bool has_piece = lane < Shape::kWidth / kHalfPiece, has_new = has_piece && keys.has_new();
  const auto placed = [&](int halves) { return keys.fresh - keys.begin < halves * Shape::kHalf; };
#pragma unroll 1
  for (int head = warp; head <= x.group; head += Shape::kWarps + 1) {
    const bool is_key = head == x.group;
    const HeadTurn<T>& turn = is_key ? turns.keys : turns.queries;
    const OwnGroup own = head_group(turn, 0, is_key ? kv_head : kv_head * x.group + head);
    const auto normed = norm_head(turn, own);
    const auto turned = turn_head(normed, turns.pairs, shared.cosine, shared.sine);
    if (stores) store_head(turn, own, normed, turned);
    if (is_key ? !has_new : !has_piece) continue;
    T* const to = !is_key                     ? shared.queries + head * Shape::kStride
                  : placed(Shape::kKeyHalves) ? new_row(shared, keys, false)
                                              : shared.new_key;
    *reinterpret_cast<Pack<T, kHalfPiece>*>(to + lane * kHalfPiece) = turned;
  }
  if (warp != Shape::kWarps || !has_new) return;
  const auto* value = static_cast<const T*>(x.v) + static_cast<int64_t>(kv_head) * Shape::kWidth;
  T* const to = placed(Shape::kValueHalves) ? new_row(shared, keys, true) : shared.new_value;
  *reinterpret_cast<uint4*>(to + lane * kHalfPiece) = *reinterpret_cast<const uint4*>(value + lane * kHalfPiece);
}

// Says what is wrong with the row; 0 to the output where it has no keys.
template <class T>
LINATTN_NO_INLINE __device__ void report_row(const AttentionView& x, const StepTurns<T>& turns, RowWords words,
                                             bool clears, int kv_head) {
  if (kv_head == 0) {
    check_offsets(x.sequences, turns.fault);
    attention_row<true>(x, 0, words);
  }
  if (!clears) return;
  for (int r = 0; r < x.group; r++) {
    clear_row(x, {0, kv_head * x.group + r}, static_cast<int>(threadIdx.x), x.width, static_cast<int>(blockDim.x));
  }
}

// Says which pages of the keys are not there.
LINATTN_NO_INLINE __device__ void report_pages(const AttentionView& x, AttentionRow row) {
  for (int key = row.begin_key(x.window); key < row.end_key(); key++) key_page(x, row, key);
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads)
    step_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan,
                const __grid_constant__ StepTurns<typename Shape::T> turns) {
  using T = typename Shape::T;
  using Rows = decltype(StepShared<Shape>::rows);
  constexpr int kHalf = Shape::kHalf, kThreads = Shape::kThreads;
  constexpr int kFirstKeys = Shape::kKeyHalves * kHalf, kFirst = kFirstKeys + Shape::kValueHalves * kHalf;
  constexpr int kRounds = (kFirst + kThreads - 1) / kThreads;
  auto& shared = *dynamic_shared<StepShared<Shape>>();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int split = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  if (thread == 0) {
    for (auto& barrier : shared.keys_full) barrier.init();
    for (auto& barrier : shared.values_full) barrier.init();
    shared.stale = false;
  }
  if (thread < 16) {
    shared.rows.max[thread] = -INFINITY;
    shared.rows.sum[thread] = 0;
  }
  if (warp < 2) {
    const HeadTurn<T>& turn = warp == 0 ? turns.queries : turns.keys;
    prefetch_weights<T, 1>(turn.norm, head_group(turn, 0, 0));
  }
  __syncthreads();

  RowWords words = read_row(x);
#ifdef LINATTN_CUDA_EMULATOR
  if (split % 2 == 1) words.position /= 2;  // a wrong guess
#endif
  const bool last = split == static_cast<int>(gridDim.x) - 1;  // its split is there seldom: it does what is to be once
  AttentionRow row;
  KeySplits splits;
  StepKeys<Shape> keys;
  bool missing = false;  // a page
  int merger = -1;       // of the head's blocks that merge
  const auto merge = [&](bool dry) {
    const int count = splits.count(), mergers = min(kMostMergers, min(x.group, static_cast<int>(gridDim.x)));
#pragma unroll 1
    for (int r = merger; r < x.group; r += mergers) {
      const int head = kv_head * x.group + r, part = head * splits.most;
      const OutputRow to{row.first, head};
      count <= kMergeGroups       ? merge_parts<1, Shape>(x, count, part, to, shared.merge, dry)
      : count <= 2 * kMergeGroups ? merge_parts<2, Shape>(x, count, part, to, shared.merge, dry)
                                  : merge_parts<4, Shape>(x, count, part, to, shared.merge, dry);
      if (dry) break;
    }
  };
  int tries = 0;
  for (;; tries++) {
    row = attention_row(x, 0, words);
    splits = key_splits(x, plan, row);
    keys = StepKeys<Shape>(x, row, splits, split);
    const int32_t* entries[kRounds];
    int pages[kRounds];
    const auto for_rows = [&](auto body) {
#pragma unroll
      for (int round = 0; round < kRounds; round++) {
        const int i = thread + round * kThreads;
        const bool value = i >= kFirstKeys;
        if (i < kFirst) body(value ? i - kFirstKeys : i, value, entries[round], pages[round]);
      }
    };
    for_rows([&](int r, bool, const int32_t*& entry, int& page) {
      const int key = keys.begin + r;
      entry = keys.stored(key) || keys.is_new(key) ? row.table + page_column(x, key) : nullptr;
      page = entry ? read_now(entry) : 0;
    });
    for_rows([&](int r, bool value, const int32_t*, int page) {
      load_first_row(x, shared, keys, kv_head, r / kHalf, r % kHalf, value, page);
    });
    const int turn_position = words.first == 0 ? words.position : 0;
#pragma unroll 1
    for (int i = thread; i < turns.pairs; i += kThreads) {
      turn_of(turn_position, turns.frequencies[i], shared.cosine[i], shared.sine[i]);
    }
    __syncthreads();
    merger = -1;
    if (splits.count() > 0) {
      const int blocks = static_cast<int>(gridDim.x), mergers = min(kMostMergers, min(x.group, blocks));
      const int first = min(splits.count(), blocks - mergers);
      if (split >= first && split < first + mergers) merger = split - first;
    }
    if (tries == 0 && merger >= 0 && keys.halves == 0) merge(true);
    if (tries == 0) wait_for_inputs();
    const RowWords now = read_row(x);
    bool stale = false;
    for_rows([&](int, bool, const int32_t* entry, int page) {
      if (entry) stale |= read_now(entry) != page;
      missing |= !is_page(x, page);
    });
    if (last || keys.halves > 0) make_new(x, turns, shared, keys, kv_head, last);
    if (stale || !same(now, words)) shared.stale = true;
    __syncthreads();
    if (!shared.stale) break;
    for (auto& full : shared.keys_full) full.wait(tries);
    for (auto& full : shared.values_full) full.wait(tries);
    words = now;
    missing = false;
    order_before_copies();
    __syncthreads();
    shared.stale = false;
    __syncthreads();
  }
  if (last) report_row(x, turns, words, splits.count() == 0, kv_head);
  if (keys.halves == 0) {
    if (merger >= 0) merge(false);
    return;
  }

  const int r = thread / Rows::kSharers;
  const float slope = x.slopes ? x.slopes[kv_head * x.group + min(r, x.group - 1)] : 0.0f;
  typename Rows::Sums out{};
  // Keys go where those of a tile were when these have their scores; values where those of the tile before were.
  const bool finds = warp == Shape::kWarps;
  if (finds && keys.halves > 2) missing |= find_halves(x, shared, keys, row, Shape::kKeyHalves);
  const T* const queries = shared.queries;
  const auto query_at = [=](int r, int piece) { return queries + r * Shape::kStride + piece * kHalfPiece; };
#pragma unroll 1
  for (int half = 0; half < keys.halves; half += 2) {
    const auto at = [&](bool value) {
      const T *const first = half_row(shared, half, 0, value), *const second = half_row(shared, half + 1, 0, value);
      return [=](int r, int piece) {
        return (r < kHalf ? first : second) + r % kHalf * Shape::kStride + piece * kHalfPiece;
      };
    };
    const auto wait_for_first = [&](ByteBarrier* full, int halves) {
      if (half < halves) full[half].wait(tries);
      if (half + 1 < halves) full[half + 1].wait(tries);
    };
    const bool goes_on = half + 2 < keys.halves;
    if (half > 0) {
      copy_async_wait<1>();  // the keys
      __syncthreads();
    }
    if (!finds) {
      wait_for_first(shared.keys_full, Shape::kKeyHalves);
      score_tile(shared.rows, query_at, at(false));
    } else if (goes_on) {
      missing |= find_halves(x, shared, keys, row, half + Shape::kKeyHalves + 2);
    }
    __syncthreads();
    if (!finds) {
      if (goes_on) {
        load_halves(x, shared, keys, kv_head, half + Shape::kKeyHalves, false);
        copy_async_commit();
        if (half > 0) load_halves(x, shared, keys, kv_head, half + Shape::kValueHalves - 2, true);
        copy_async_commit();
      }
      weigh_tile<false>(shared.rows, x, keys.begin + half * kHalf, {}, row.position, r < x.group, slope, nullptr);
      goes_on ? copy_async_wait<2>() : copy_async_wait<0>();  // the values
    }
    __syncthreads();
    if (!finds) {
      wait_for_first(shared.values_full, Shape::kValueHalves);
      add_values(shared.rows, at(true), out);
    }
  }
  if (missing) report_pages(x, row);

  const int part = kv_head * x.group * splits.most + split;  // of the first query row
  if (thread < x.group) {
    part_maxima[part + thread * splits.most] = word_of(shared.rows.max[thread]);
    part_sums[part + thread * splits.most] = word_of(shared.rows.sum[thread]);
  }
#pragma unroll
  for (int high = 0; high < 2; high++) {
    const int r = high * 8 + lane / 4;
    if (warp == Shape::kWarps || r >= x.group) continue;
    auto* const to = reinterpret_cast<uint2*>(part_words) + (part + r * splits.most) * (Shape::kWidth / 2);
#pragma unroll
    for (int n = 0; n < Rows::kColumnTiles; n++) {
      const int d = (warp * Rows::kColumnTiles + n) * 8 + lane % 4 * 2;
      to[d / 2] = uint2{word_of(out[0][n][2 * high]), word_of(out[0][n][2 * high + 1])};
    }
  }
  const int page = shared.new_page;
  if (keys.has_new() && page >= 0 && page < x.page_count && warp < 2 && lane < Shape::kWidth / kHalfPiece) {
    const bool value = warp == 1;
    const int64_t at = static_cast<int64_t>(row.position % x.page_tokens) * x.kv_heads + kv_head;
    T* const to = static_cast<T*>(x.pages) + page * x.page_stride + (value ? values_apart(x) : 0) + at * Shape::kWidth;
    *reinterpret_cast<uint4*>(to + lane * kHalfPiece) =
        *reinterpret_cast<const uint4*>(new_row(shared, keys, value) + lane * kHalfPiece);
  }
  if (merger < 0) return;
  __syncthreads();
  merge(false);
}

template <class Shape>
void launch_step(const AttentionView& x, const DecodePlan& plan, const NormedTurn& queries, const NormedTurn& keys,
                 Cuda& cuda) {
  using T = typename Shape::T;
  const StepTurns<T> turns{head_turn<T>(queries), head_turn<T>(keys),
                           static_cast<int>(queries.rope.inverse_frequencies.shape[0]),
                           queries.rope.inverse_frequencies.as<const float>(), cuda.faults + kOpIndex<Rope>};
  const dim3 grid(static_cast<unsigned>(plan.splits), static_cast<unsigned>(x.kv_heads));
  launch_early(cuda, step_kernel<Shape>, grid, Shape::kThreads, sizeof(StepShared<Shape>), x, plan, turns);
}

// Whether the kernel of the plain op is the one that step_kernel follows.
bool follows(const AttentionView& x, [[maybe_unused]] const Cuda& cuda) {
#ifdef LINATTN_CUDA_EMULATOR
  return x.page_tokens > 0;
#else
  return cuda.properties.capability == 90 && x.page_tokens % 8 == 0;
#endif
}

template <class T>
void launch_width(const AttentionView& x, const DecodePlan& plan, const NormedTurn& queries, const NormedTurn& keys,
                  Cuda& cuda) {
#ifdef LINATTN_CUDA_EMULATOR
  constexpr int kWarps = 4, kWideKeys = 32;
#else
  constexpr int kWarps = 8, kWideKeys = 64;
#endif
  x.width == 64    ? launch_step<StepShape<T, 64, 64, 4>>(x, plan, queries, keys, cuda)
  : x.width == 128 ? launch_step<StepShape<T, 128, 64, kWarps>>(x, plan, queries, keys, cuda)
                   : launch_step<StepShape<T, 256, kWideKeys, kWarps>>(x, plan, queries, keys, cuda);
}

bool same_rows(const Sequences& a, const Sequences& b) {
  return a.rows == b.rows && a.tokens == b.tokens && a.offsets.data == b.offsets.data &&
         a.positions.data == b.positions.data;
}

}  // namespace

bool step_attention(const NormedTurn& queries, const NormedTurn& keys, const SoftmaxAttention& op, Cuda& cuda) {
  const Rope &query = queries.rope, &key = keys.rope;
  if (!turns_heads(queries, keys) || op.sequences.rows != 1 || op.sequences.tokens != 1 ||
      !same_rows(op.sequences, query.sequences) || op.q.data != query.out.data || op.k.data != key.out.data ||
      op.q.shape[0] != 1 || op.q.shape[1] != query.x.shape[1] || op.k.shape[1] != key.x.shape[1]) {
    return false;
  }
  cuda.op = kOpIndex<SoftmaxAttention>;
  const AttentionView x = attention_view(op, cuda);
  const DecodePlan plan = plan_decode(x, 1, cuda);
  const bool width = x.width == 64 || x.width == 128 || x.width == 256;
  const std::initializer_list<Tensor> made = {queries.norm.out, keys.norm.out, query.out, key.out};
  if (!width || !supports_mma(x) || !x.pieces || x.bias || x.sink_tokens > 0 || x.group > kMostGroup ||
      x.heads * plan.splits > kMostParts || !follows(x, cuda) || !apart(made, {op.v, op.out, op.pages}) ||
      !apart({op.out, op.pages}, {queries.norm.x, keys.norm.x, op.v}) || !apart({op.out}, {op.pages})) {
    return false;
  }
  for_float(x.q_type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) launch_width<T>(x, plan, queries, keys, cuda);
  });
  return true;
}

}  // namespace linattn::cuda
