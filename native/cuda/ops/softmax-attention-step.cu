// A block a split of the keys of a key head. Before the kernels in front have ended it guesses where the keys are, and
// has the copy engine load them; then it makes the queries, the new key and value. The last block of a head merges what
// all have left. The arithmetic is that of the kernels of softmaxAttention for decode rows and of their merge.
#include "cuda/device/bulk.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/fusions.h"
#include "cuda/ops/norm-rope.cuh"
#include "cuda/ops/softmax-attention-decode.cuh"
#include "cuda/ops/softmax-attention-step.h"

namespace linattn::cuda {
namespace {

constexpr int kMostGroup = 16;      // query heads of a key head
constexpr int kMostKeyHeads = 128;  // that have a counter
constexpr int kMostSplits = 64;
constexpr int kMergeGroups = 16;  // sums over every 16th split

// Blocks of a key head that have left their part; 0 between kernels.
__device__ unsigned arrived[kMostKeyHeads];

// Tiles of kKeys keys, as the kernel that runs the op alone has them. Half tiles are loaded, kHalves at most.
template <class TGiven, int kWidthGiven, int kKeysGiven, int kWarpsGiven>
struct StepShape {
  using T = TGiven;
  static constexpr int kWidth = kWidthGiven, kKeys = kKeysGiven, kWarps = kWarpsGiven;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kHalf = kKeys / 2, kHalves = 3;
  static constexpr int kStride = kWidth + kHalfPiece;  // no bank conflicts
  static constexpr int kLoaded = kHalf * kHalves;
  static_assert(2 * kKeys <= kThreads);
};

struct MergeShared {
  float weights[kMostGroup][kMostSplits], sums[kMostGroup][kMostSplits], max[kMostGroup];
};

template <class Shape>
struct StepShared {
  using T = typename Shape::T;
  union {
    alignas(16) T keys[Shape::kLoaded * Shape::kStride];
    MergeShared merge;  // when no more keys come
  };
  T values[Shape::kLoaded * Shape::kStride];
  T queries[16 * Shape::kStride];
  T new_key[Shape::kWidth], new_value[Shape::kWidth];
  DecodeRows<T, Shape::kWidth, 1, Shape::kKeys, Shape::kWarps> rows;
  float cosine[Shape::kWidth / 2], sine[Shape::kWidth / 2];
  ByteBarrier keys_full[Shape::kHalves], values_full[Shape::kHalves];
  bool stale, last;
};

template <class T>
struct StepTurns {
  HeadTurn<T> queries, keys;
  int pairs;
  const float* frequencies;
  Fault* fault;
};

// What a block has to know of its token.
struct StepRow {
  AttentionRow row;
  int turn_position;

  __device__ bool operator==(const StepRow& other) const {
    return row.first == other.row.first && row.count == other.row.count && row.position == other.row.position &&
           row.table_row == other.row.table_row && turn_position == other.turn_position;
  }
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

template <bool reporting>
__device__ __forceinline__ StepRow read_row(const AttentionView& x) {
  const AttentionRow row = attention_row<reporting>(x, 0, [](const int32_t* from) { return read_now(from); });
  return {row, read_now(x.sequences.offsets) == 0 ? read_now(x.sequences.positions) : 0};
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
  __device__ uint32_t stored_bytes(int half) const {
    const int from = begin + half * Shape::kHalf, to = from + Shape::kHalf;
    const int keys = min(min(end, fresh), to) - max(first, from);
    return max(0, keys) * Shape::kWidth * static_cast<uint32_t>(sizeof(typename Shape::T));
  }
};

// The entry of the page table for a key.
__device__ __forceinline__ const int32_t* page_entry(const AttentionView& x, const AttentionRow& row, int key) {
  return row.table + page_column(x, key);
}

// Row r of a half, key or value: from its page, which is another one where the table has none, or from the new token,
// or nothing.
template <class Shape>
__device__ __forceinline__ void load_row(const AttentionView& x, StepShared<Shape>& shared, const StepKeys<Shape>& keys,
                                         int kv_head, int half, int r, bool value, int page) {
  using T = typename Shape::T;
  const int slot = half % Shape::kHalves, key = keys.begin + half * Shape::kHalf + r;
  T* const to = (value ? shared.values : shared.keys) + (slot * Shape::kHalf + r) * Shape::kStride;
  ByteBarrier& full = (value ? shared.values_full : shared.keys_full)[slot];
  if (r == 0) full.expect(keys.stored_bytes(half));
  if (half >= keys.halves) return;
  if (keys.stored(key)) {
    const int64_t at = static_cast<int64_t>(key % x.page_tokens) * x.kv_heads + kv_head;
    const int64_t from = (page >= 0 && page < x.page_count ? page : 0) * x.page_stride + at * Shape::kWidth;
    copy_bulk(to, static_cast<const T*>(x.pages) + from + (value ? values_apart(x) : 0), Shape::kWidth * sizeof(T),
              full);
    return;
  }
  const bool fresh = key == keys.fresh;
  if (!value && !fresh) return;
  const T* const from = value ? shared.new_value : shared.new_key;
#pragma unroll 4
  for (int i = 0; i < Shape::kWidth; i += kHalfPiece) {
    *reinterpret_cast<uint4*>(to + i) = fresh ? *reinterpret_cast<const uint4*>(from + i) : uint4{0, 0, 0, 0};
  }
}

// What another block has left, past the first cache.
template <class V>
__device__ __forceinline__ V load_part(const V* from) {
#ifdef LINATTN_CUDA_EMULATOR
  return *from;
#else
  return __ldcg(from);
#endif
}

// What the last block of a head does: the output from the parts of all splits. kDeep: of every 16th split, there are so
// many at most.
template <int kDeep, class Shape>
__device__ __forceinline__ void merge_parts(const AttentionView& x, const DecodePlan& plan, const AttentionRow& row,
                                            int splits, int slot, int kv_head, MergeShared& shared) {
  using T = typename Shape::T;
  constexpr int kColumns = Shape::kWidth / 4, kAtOnce = kMergeGroups / kDeep;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  for (int r = thread / kWarp; r < x.group; r += Shape::kWarps) {
    const int from = (kv_head * x.group + r) * slot;
    float max[2], sum[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int s = lane + i * kWarp;
      max[i] = s < splits ? load_part(plan.max + from + s) : -INFINITY;
      sum[i] = s < splits ? load_part(plan.sum + from + s) : 0.0f;
    }
    const float top = warp_max(fmaxf(max[0], max[1]));
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int s = lane + i * kWarp;
      shared.weights[r][s] = sum[i] == 0 ? 0.0f : expf(max[i] - top);
      shared.sums[r][s] = sum[i];
    }
    if (lane == 0) shared.max[r] = top;
  }
  __syncthreads();
  for (int i = thread; i < x.group * kColumns; i += Shape::kThreads) {
    const int r = i / kColumns, column = i % kColumns;
    const auto* parts = reinterpret_cast<const float4*>(plan.out) +
                        static_cast<int64_t>(kv_head * x.group + r) * slot * kColumns + column;
    float4 all{0, 0, 0, 0};
#pragma unroll 1
    for (int group = 0; group < kMergeGroups; group += kAtOnce) {
      float4 part[kDeep][kAtOnce];
#pragma unroll
      for (int d = 0; d < kDeep; d++) {
#pragma unroll
        for (int g = 0; g < kAtOnce; g++) {
          const int s = d * kMergeGroups + group + g;
          part[d][g] = s < splits ? load_part(parts + s * kColumns) : float4{0, 0, 0, 0};
        }
      }
#pragma unroll
      for (int g = 0; g < kAtOnce; g++) {
        float4 total{0, 0, 0, 0};
#pragma unroll
        for (int d = 0; d < kDeep; d++) {
          const int s = d * kMergeGroups + group + g;
          const float weight = s < splits ? shared.weights[r][s] : 0.0f;
          if (weight == 0) continue;
          total.x += weight * part[d][g].x;
          total.y += weight * part[d][g].y;
          total.z += weight * part[d][g].z;
          total.w += weight * part[d][g].w;
        }
        all.x += total.x;
        all.y += total.y;
        all.z += total.z;
        all.w += total.w;
      }
    }
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += shared.weights[r][s] * shared.sums[r][s];
    const OutputRow at{row.first, kv_head * x.group + r};
    const float factor = finish_row(x, at, shared.max[r], sum, column == 0);
    Pack<T, 4> out;
    out.value[0] = from_float<T>(all.x * factor);
    out.value[1] = from_float<T>(all.y * factor);
    out.value[2] = from_float<T>(all.z * factor);
    out.value[3] = from_float<T>(all.w * factor);
    *reinterpret_cast<Pack<T, 4>*>(static_cast<T*>(x.out) + at.token * x.out_stride + at.head * Shape::kWidth +
                                   4 * column) = out;
  }
}

// Where the new key, or value, of a split that has it is in shared memory while its half is there.
template <class Shape>
__device__ __forceinline__ typename Shape::T* new_row(StepShared<Shape>& shared, const StepKeys<Shape>& keys,
                                                      bool value) {
  const int apart = keys.fresh - keys.begin, slot = apart / Shape::kHalf % Shape::kHalves;
  return (value ? shared.values : shared.keys) + (slot * Shape::kHalf + apart % Shape::kHalf) * Shape::kStride;
}

// The turned queries of the block's head, and its new key and value, in shared memory; what norms and rotations write.
template <class Shape>
__device__ __forceinline__ void make_new(const AttentionView& x, const StepTurns<typename Shape::T>& turns,
                                         StepShared<Shape>& shared, const StepKeys<Shape>& keys, int kv_head,
                                         bool stores) {
  using T = typename Shape::T;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const bool has_piece = lane < Shape::kWidth / kHalfPiece, has_new = has_piece && keys.has_new();
  const bool placed = keys.fresh - keys.begin < Shape::kLoaded;  // its half is one of the first ones
#pragma unroll 1
  for (int head = warp; head <= x.group; head += Shape::kWarps) {
    const bool is_key = head == x.group;
    const HeadTurn<T>& turn = is_key ? turns.keys : turns.queries;
    const OwnGroup own = head_group(turn, 0, is_key ? kv_head : kv_head * x.group + head);
    const auto normed = norm_head(turn, own);
    const auto turned = turn_head(normed, turns.pairs, shared.cosine, shared.sine);
    if (stores) store_head(turn, own, normed, turned);
    if (is_key ? !has_new : !has_piece) continue;
    T* const to = !is_key  ? shared.queries + head * Shape::kStride
                  : placed ? new_row(shared, keys, false)
                           : shared.new_key;
    *reinterpret_cast<Pack<T, kHalfPiece>*>(to + lane * kHalfPiece) = turned;
  }
  if (warp != Shape::kWarps - 1 || !has_new) return;
  const auto* value = static_cast<const T*>(x.v) + static_cast<int64_t>(kv_head) * Shape::kWidth;
  T* const to = placed ? new_row(shared, keys, true) : shared.new_value;
  *reinterpret_cast<uint4*>(to + lane * kHalfPiece) = *reinterpret_cast<const uint4*>(value + lane * kHalfPiece);
}

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads)
    step_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan,
                const __grid_constant__ StepTurns<typename Shape::T> turns) {
  using T = typename Shape::T;
  using Rows = decltype(StepShared<Shape>::rows);
  constexpr int kHalf = Shape::kHalf, kHalves = Shape::kHalves, kThreads = Shape::kThreads;
  constexpr int kRounds = (2 * Shape::kLoaded + kThreads - 1) / kThreads;
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

  StepRow token = read_row<false>(x);
#ifdef LINATTN_CUDA_EMULATOR
  if (split % 2 == 1 && token.row.table) token.row.position = token.turn_position /= 2;  // a wrong guess
#endif
  KeySplits splits;
  StepKeys<Shape> keys;
  int loaded = 0;  // halves that were loaded for nothing
  for (;;) {
    splits = key_splits(x, plan, token.row);
    keys = StepKeys<Shape>(x, token.row, splits, split);
    int pages[kRounds];
    const auto for_rows = [&](auto body) {
#pragma unroll
      for (int round = 0; round < kRounds; round++) {
        const int i = thread + round * kThreads;
        if (i < 2 * Shape::kLoaded) body(i % Shape::kLoaded, i >= Shape::kLoaded, pages[round]);
      }
    };
    for_rows([&](int r, bool, int& page) {
      page = keys.stored(keys.begin + r) ? read_now(page_entry(x, token.row, keys.begin + r)) : 0;
    });
    for_rows(
        [&](int r, bool value, int page) { load_row(x, shared, keys, kv_head, r / kHalf, r % kHalf, value, page); });
#pragma unroll 1
    for (int i = thread; i < turns.pairs; i += kThreads) {
      turn_of(token.turn_position, turns.frequencies[i], shared.cosine[i], shared.sine[i]);
    }
    __syncthreads();
    if (loaded == 0) wait_for_inputs();
    const StepRow read = read_row<true>(x);
    bool stale = !(read == token);
    for_rows([&](int r, bool, int page) {
      if (keys.stored(keys.begin + r)) stale |= read_now(page_entry(x, token.row, keys.begin + r)) != page;
    });
    if (split == 0 || keys.halves > 0) make_new(x, turns, shared, keys, kv_head, split == 0);
    if (stale) shared.stale = true;
    __syncthreads();
    if (!shared.stale) break;
    for (int i = 0; i < kHalves; i++) {
      shared.keys_full[i].wait(loaded / kHalves);
      shared.values_full[i].wait(loaded / kHalves);
    }
    loaded += kHalves;
    token = read;
    order_before_copies();
    __syncthreads();
    shared.stale = false;
    __syncthreads();
  }
  if (split == 0 && kv_head == 0) check_offsets(x.sequences, turns.fault);
  if (splits.count() == 0 && split == 0) {
    for (int r = 0; r < x.group; r++) clear_row(x, {0, kv_head * x.group + r}, thread, Shape::kWidth, kThreads);
  }
  if (keys.halves == 0) return;

  const int r = thread / Rows::kSharers;
  const float slope = x.slopes ? x.slopes[kv_head * x.group + min(r, x.group - 1)] : 0.0f;
  const int64_t new_place = keys.has_new() ? key_offset(x, token.row, token.row.position) : -1;
  typename Rows::Sums out{};
#pragma unroll 1
  for (int half = 0; half < keys.halves; half += 2) {
    // The rows that go where this tile is: a thread has one of the keys or of the values.
    const int coming = half + kHalves + thread % Shape::kKeys / kHalf, coming_row = thread % kHalf;
    const int coming_key = keys.begin + coming * kHalf + coming_row;
    const bool comes = coming < keys.halves;
    const int page = comes && keys.stored(coming_key) ? key_page(x, token.row, coming_key) : -1;
    const auto load_coming = [&](bool value) {
      if (comes && thread / Shape::kKeys == value) {
        load_row(x, shared, keys, kv_head, coming, coming_row, value, page);
      }
    };
    const auto wait_for = [&](ByteBarrier* full) {
      for (int i = half; i < half + 2; i++) full[i % kHalves].wait((loaded + i) / kHalves);
    };
    const int slots[2] = {half % kHalves * kHalf, (half + 1) % kHalves * kHalf - kHalf};
    const auto at = [&](const T* tile) {
      return
          [=](int r, int piece) { return tile + (r + slots[r < kHalf ? 0 : 1]) * Shape::kStride + piece * kHalfPiece; };
    };
    const T* const queries = shared.queries;
    wait_for(shared.keys_full);
    score_tile(
        shared.rows, [=](int r, int piece) { return queries + r * Shape::kStride + piece * kHalfPiece; },
        at(shared.keys));
    __syncthreads();
    load_coming(false);
    weigh_tile<false>(shared.rows, x, keys.begin + half * kHalf, {}, token.row.position, r < x.group, slope, nullptr);
    __syncthreads();
    wait_for(shared.values_full);
    add_values(shared.rows, at(shared.values), out);
    if (half + 2 < keys.halves) {
      __syncthreads();
      load_coming(true);
    }
  }

  if (new_place >= 0 && warp < 2 && lane < Shape::kWidth / kHalfPiece) {
    const bool value = warp == 1;
    T* const to = static_cast<T*>(x.pages) + new_place + (value ? values_apart(x) : 0) + kv_head * Shape::kWidth;
    *reinterpret_cast<uint4*>(to + lane * kHalfPiece) =
        *reinterpret_cast<const uint4*>(new_row(shared, keys, value) + lane * kHalfPiece);
  }
  const int part = kv_head * x.group * splits.most + split;  // of the first query row
  if (thread < x.group) {
    plan.max[part + thread * splits.most] = shared.rows.max[thread];
    plan.sum[part + thread * splits.most] = shared.rows.sum[thread];
  }
#pragma unroll
  for (int high = 0; high < 2; high++) {
    const int row = high * 8 + lane / 4;
    if (row >= x.group) continue;
    float* const to = plan.out + static_cast<int64_t>(part + row * splits.most) * Shape::kWidth;
#pragma unroll
    for (int n = 0; n < Rows::kColumnTiles; n++) {
      const int d = (warp * Rows::kColumnTiles + n) * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to + d) = make_float2(out[0][n][2 * high], out[0][n][2 * high + 1]);
    }
  }
  __syncthreads();
  const int count = splits.count();
  if (thread == 0) {
    __threadfence();
    shared.last = atomicAdd(&arrived[kv_head], 1u) + 1 == static_cast<unsigned>(count);
    if (shared.last) arrived[kv_head] = 0;
    __threadfence();
  }
  __syncthreads();
  if (!shared.last) return;
  count <= kMergeGroups       ? merge_parts<1, Shape>(x, plan, token.row, count, splits.most, kv_head, shared.merge)
  : count <= 2 * kMergeGroups ? merge_parts<2, Shape>(x, plan, token.row, count, splits.most, kv_head, shared.merge)
                              : merge_parts<4, Shape>(x, plan, token.row, count, splits.most, kv_head, shared.merge);
}

template <class Shape>
void launch_step(const AttentionView& x, const NormedTurn& queries, const NormedTurn& keys, Cuda& cuda) {
  using T = typename Shape::T;
  const DecodePlan plan = plan_decode(x, 1, cuda);
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
void launch_width(const AttentionView& x, const NormedTurn& queries, const NormedTurn& keys, Cuda& cuda) {
#ifdef LINATTN_CUDA_EMULATOR
  constexpr int kWarps = 4, kWideKeys = 32;
#else
  constexpr int kWarps = 8, kWideKeys = 64;
#endif
  x.width == 64    ? launch_step<StepShape<T, 64, 64, 4>>(x, queries, keys, cuda)
  : x.width == 128 ? launch_step<StepShape<T, 128, 64, kWarps>>(x, queries, keys, cuda)
                   : launch_step<StepShape<T, 256, kWideKeys, kWarps>>(x, queries, keys, cuda);
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
  const bool width = x.width == 64 || x.width == 128 || x.width == 256;
  const std::initializer_list<Tensor> made = {queries.norm.out, keys.norm.out, query.out, key.out};
  if (!width || !supports_mma(x) || !x.pieces || x.bias || x.sink_tokens > 0 || x.group > kMostGroup ||
      x.kv_heads > kMostKeyHeads || !follows(x, cuda) || !apart(made, {op.v, op.out, op.pages}) ||
      !apart({op.out, op.pages}, {queries.norm.x, keys.norm.x, op.v}) || !apart({op.out}, {op.pages})) {
    return false;
  }
  for_float(x.q_type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) launch_width<T>(x, queries, keys, cuda);
  });
  return true;
}

}  // namespace linattn::cuda
