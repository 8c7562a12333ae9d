// A block a split of the keys of a key head. Before the kernels in front have ended it guesses where the keys are, and
// has the copy engine load them; then it makes the queries, the new key and value. Blocks after those of a head's
// splits merge what these leave for them, word by word as it comes. The arithmetic is that of the kernels of
// softmaxAttention for decode rows and of their merge.
#include "cuda/device/launch.cuh"
#include "cuda/fusions.h"
#include "cuda/ops/norm-rope.cuh"
#include "cuda/ops/softmax-attention-step.cuh"
#include "cuda/ops/softmax-attention-step.h"

namespace linattn::cuda {
namespace {

constexpr int kMostGroup = 16;  // query heads of a key head

template <class T>
struct StepTurns {
  HeadTurn<T> queries, keys;
  int pairs;
  const float* frequencies;
  Fault* fault;
};
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
