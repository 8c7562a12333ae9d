// A block a split of the keys of a key head. Before the kernels in front have ended one warp guesses where the keys
// are, and has the copy engine load the first ones; then all make the queries, the new key and value. Blocks after
// those of a head's splits merge what these leave for them, word by word as it comes. The arithmetic is that of the
// kernels of softmaxAttention for decode rows and of their merge.
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

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(LINATTN_CUDA_EMULATOR)

// Of the warps that multiply.
template <class Shape>
__device__ __forceinline__ void meet() {
  __syncwarp();
#ifdef LINATTN_CUDA_EMULATOR
  emulator::named_barrier(1, Shape::kMultipliers);
#else
  asm volatile("bar.sync 1, %0;" ::"n"(Shape::kMultipliers) : "memory");
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
                                         StepShared<Shape>& shared, bool has_new, int kv_head, bool stores) {
  using T = typename Shape::T;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const bool has_piece = lane < Shape::kWidth / kHalfPiece;
#pragma unroll 1
  for (int head = warp; head <= x.group; head += Shape::kWarps + 1) {
    const bool is_key = head == x.group;
    const HeadTurn<T>& turn = is_key ? turns.keys : turns.queries;
    const OwnGroup own = head_group(turn, 0, is_key ? kv_head : kv_head * x.group + head);
    const auto normed = norm_head(turn, own);
    const auto turned = turn_head(normed, turns.pairs, shared.cosine, shared.sine);
    if (stores) store_head(turn, own, normed, turned);
    if (!has_piece || (is_key && !has_new)) continue;
    T* const to = is_key ? shared.new_row[0] : shared.queries + head * Shape::kStride;
    *reinterpret_cast<Pack<T, kHalfPiece>*>(to + lane * kHalfPiece) = turned;
  }
  if (warp != Shape::kWarps || !has_piece || !has_new) return;
  const auto* value = static_cast<const T*>(x.v) + static_cast<int64_t>(kv_head) * Shape::kWidth;
  *reinterpret_cast<uint4*>(shared.new_row[1] + lane * kHalfPiece) =
      *reinterpret_cast<const uint4*>(value + lane * kHalfPiece);
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

// The scores and weighted values of a split's tiles. By the warps that multiply; `tries` phases of barriers have
// passed.
template <class Shape, class Sums>
__device__ __forceinline__ void multiply_keys(const AttentionView& x, StepShared<Shape>& shared,
                                              StepBarriers<Shape>& barriers, const StepKeys<Shape>& keys, int kv_head,
                                              int tries, Sums& out) {
  using T = typename Shape::T;
  using Rows = decltype(StepShared<Shape>::rows);
  constexpr int kHalf = Shape::kHalf, kSlots = Shape::kSlots;
  const int thread = static_cast<int>(threadIdx.x), r = thread / Rows::kSharers;
  const float slope = x.slopes ? x.slopes[kv_head * x.group + min(r, x.group - 1)] : 0.0f;
  const T* const queries = shared.queries;
  const auto query_at = [=](int r, int piece) { return queries + r * Shape::kStride + piece * kHalfPiece; };
#pragma unroll 1
  for (int tile = 0; tile < keys.tiles; tile++) {
    const int first_key = keys.begin + tile * Shape::kKeys, in_tile = keys.fresh - first_key;
    const auto slot = [=](int h) { return (tile * Shape::kHalves + h) % kSlots; };
    const auto wait = [&](int h) {
      barriers.full[slot(h)].wait(tries + (tile * Shape::kHalves + h) / kSlots);
      barriers.full[slot(h + 1)].wait(tries + (tile * Shape::kHalves + h + 1) / kSlots);
    };
    const auto at = [&](int h) {
      const T *const low = shared.slots[slot(h)], *const high = shared.slots[slot(h + 1)];
      return [=](int r, int piece) { return (r < kHalf ? low : high) + wgmma_place<Shape::kWidth>(r % kHalf, piece); };
    };
    // The new token's row comes from this kernel, and not from its page.
    const bool has_new = in_tile >= 0 && in_tile < Shape::kKeys;
    const auto put_new = [&](int h) {
      if (thread >= Shape::kWidth / kHalfPiece) return;
      T* const to = shared.slots[slot(h + in_tile / kHalf)] + wgmma_place<Shape::kWidth>(in_tile % kHalf, thread);
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(shared.new_row[h / 2] + thread * kHalfPiece);
    };
    wait(0);
    if (has_new) {
      put_new(0);
      meet<Shape>();
    }
    score_tile(shared.rows, query_at, at(0));
    barriers.empty[slot(0)].arrive();
    barriers.empty[slot(1)].arrive();
    meet<Shape>();
    weigh_tile<false>(shared.rows, x, first_key, {}, keys.fresh, r < x.group, slope, nullptr);
    wait(2);
    for (int half = 0; half < 2; half++) {
      clear_unseen<kHalf, Shape::kWidth, Shape::kMultipliers>(shared.slots[slot(2 + half)], first_key + half * kHalf,
                                                              keys.first, keys.end);
    }
    if (has_new) put_new(2);
    meet<Shape>();
    add_values(shared.rows, at(2), out);
    barriers.empty[slot(2)].arrive();
    barriers.empty[slot(3)].arrive();
  }
}

#endif

// A block has as few registers as one of so many threads would: then there can be room for it beside a block of the
// product in front, on each quarter of a multiprocessor.
constexpr int kBoundingThreads = 512;

// Empty but for sm_90a; there it declares shared memory, by which is_for_hopper() knows it.
template <class Shape>
__global__ void __launch_bounds__(kBoundingThreads)
    step_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan,
                const __grid_constant__ StepTurns<typename Shape::T> turns, const __grid_constant__ KeyBoxes boxes) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(LINATTN_CUDA_EMULATOR)
  using T = typename Shape::T;
  using Rows = decltype(StepShared<Shape>::rows);
  __shared__ StepBarriers<Shape> barriers;
  auto& shared = *dynamic_shared<StepShared<Shape>>();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int kv_head = static_cast<int>(blockIdx.x), split = static_cast<int>(blockIdx.y);
  const bool loads = warp == Shape::kWarps;
  if (warp == 2) fetch_arguments(&shared.arguments, x, plan, turns);
  if (thread == 0) {
    for (auto& barrier : barriers.full) barrier.init();
    for (auto& barrier : barriers.empty) barrier.init(Shape::kWarps);
    shared.stale = false;
    shared.guess = read_row(x);  // by one thread: a kernel in front may be writing the words, and all must agree
#ifdef LINATTN_CUDA_EMULATOR
    if (split % 2 == 1) shared.guess.position /= 2;  // a wrong one
#endif
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

  RowWords words = shared.guess;
  const bool last = split == static_cast<int>(gridDim.y) - 1;  // its split is there seldom: it does what is to be once
  AttentionRow row;
  KeySplits splits;
  StepKeys<Shape> keys;
  bool missing = false;  // a page
  int merger = -1;       // of the head's blocks that merge
  const auto merge = [&](bool dry) {
    const int count = splits.count(), mergers = min(kMostMergers, min(x.group, static_cast<int>(gridDim.y)));
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
    const StepBox<Shape> box(x, boxes, row, keys, 0);
    const bool reads = loads && box.entry;
    const int page = reads ? read_now(box.entry) : 0;
    if (loads) load_first(x, shared, barriers, boxes, keys, box, kv_head, page);
    const int turn_position = words.first == 0 ? words.position : 0;
#pragma unroll 1
    for (int i = thread; i < turns.pairs; i += Shape::kThreads) {
      turn_of(turn_position, turns.frequencies[i], shared.cosine[i], shared.sine[i]);
    }
    __syncthreads();
    merger = -1;
    if (splits.count() > 0) {
      const int blocks = static_cast<int>(gridDim.y), mergers = min(kMostMergers, min(x.group, blocks));
      const int first = min(splits.count(), blocks - mergers);
      if (split >= first && split < first + mergers) merger = split - first;
    }
    if (tries == 0 && merger >= 0 && keys.tiles == 0) merge(true);
    if (tries == 0) wait_for_inputs();
    const RowWords now = read_row(x);
    const bool moved = reads && read_now(box.entry) != page;
    missing = reads && !is_page(x, page);
    if (last || keys.tiles > 0) make_new(x, turns, shared, keys.has_new(), kv_head, last);
    if (moved || !same(now, words)) shared.stale = true;
    __syncthreads();
    if (!shared.stale) break;
    for (auto& full : barriers.full) full.wait(tries);
    words = now;
#ifndef LINATTN_CUDA_EMULATOR
    wgmma_publish();  // what a dry merge left where keys come
#endif
    __syncthreads();
    shared.stale = false;
    __syncthreads();
  }
  if (last) report_row(x, turns, words, splits.count() == 0, kv_head);
  if (keys.tiles == 0) {
    if (merger >= 0) merge(false);
    return;
  }
  const bool stores = keys.has_new() && warp < 2 && lane < Shape::kWidth / kHalfPiece;
  const int new_page = stores ? row.table[page_column(x, keys.fresh)] : -1;

  typename Rows::Sums out{};
  if (loads) {
    missing |= load_rest(x, shared, barriers, boxes, row, keys, kv_head);
  } else {
    multiply_keys(x, shared, barriers, keys, kv_head, tries, out);
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
    if (loads || r >= x.group) continue;
    auto* const to = reinterpret_cast<uint2*>(part_words) + (part + r * splits.most) * (Shape::kWidth / 2);
#pragma unroll
    for (int n = 0; n < Rows::kColumnTiles; n++) {
      const int d = (warp * Rows::kColumnTiles + n) * 8 + lane % 4 * 2;
      to[d / 2] = uint2{word_of(out[0][n][2 * high]), word_of(out[0][n][2 * high + 1])};
    }
  }
  if (stores && is_page(x, new_page)) {
    const int64_t at = static_cast<int64_t>(row.position % x.page_tokens) * x.kv_heads + kv_head;
    T* const to = static_cast<T*>(x.pages) + new_page * x.page_stride + warp * values_apart(x) + at * Shape::kWidth;
    *reinterpret_cast<uint4*>(to + lane * kHalfPiece) =
        *reinterpret_cast<const uint4*>(shared.new_row[warp] + lane * kHalfPiece);
  }
  if (merger < 0) return;
  __syncthreads();
  merge(false);
#endif
}

template <class Shape>
bool launch_step(const AttentionView& x, const DecodePlan& plan, const NormedTurn& queries, const NormedTurn& keys,
                 Cuda& cuda) {
  using T = typename Shape::T;
  KeyBoxes boxes;
  if (!make_key_boxes(x, Shape::kHalf, boxes)) return false;
#ifndef LINATTN_CUDA_EMULATOR
  if (!is_for_hopper(step_kernel<Shape>)) return false;
#endif
  const StepTurns<T> turns{head_turn<T>(queries), head_turn<T>(keys),
                           static_cast<int>(queries.rope.inverse_frequencies.shape[0]),
                           queries.rope.inverse_frequencies.as<const float>(), cuda.faults + kOpIndex<Rope>};
  // Splits that are there come first in the order in which blocks begin; see step_attention().
  const dim3 grid(static_cast<unsigned>(x.kv_heads), static_cast<unsigned>(plan.splits));
  launch_as(LaunchHow{.early = true, .all_shared = true}, cuda, step_kernel<Shape>, grid, Shape::kThreads,
            sizeof(StepShared<Shape>), x, plan, turns, boxes);
  return true;
}

// With the tiles of the kernel that runs the op alone.
template <class T>
bool launch_width(const AttentionView& x, const DecodePlan& plan, const NormedTurn& queries, const NormedTurn& keys,
                  Cuda& cuda) {
#ifdef LINATTN_CUDA_EMULATOR
  constexpr int kWarps = 4, kWideKeys = 32;
#else
  constexpr int kWarps = 8, kWideKeys = 64;
#endif
  return x.width == 64    ? launch_step<StepShape<T, 64, 64, 4>>(x, plan, queries, keys, cuda)
         : x.width == 128 ? launch_step<StepShape<T, 128, 64, kWarps>>(x, plan, queries, keys, cuda)
                          : launch_step<StepShape<T, 256, kWideKeys, kWarps>>(x, plan, queries, keys, cuda);
}

bool same_rows(const Sequences& a, const Sequences& b) {
  return a.rows == b.rows && a.tokens == b.tokens && a.offsets.data == b.offsets.data &&
         a.positions.data == b.positions.data;
}

bool fit(const NormedTurn& queries, const NormedTurn& keys, const SoftmaxAttention& op) {
  const Rope &query = queries.rope, &key = keys.rope;
  const auto same_heads = [](const Tensor& a, const Tensor& b) {
    return a.data == b.data && a.dtype == b.dtype && a.shape[0] == 1 && a.shape[1] == b.shape[1] &&
           a.shape[2] == b.shape[2];
  };
  const std::initializer_list<Tensor> made = {queries.norm.out, keys.norm.out, query.out, key.out};
  const std::initializer_list<Tensor> attended = {op.out, op.row_max, op.row_sum, op.pages};
  return turns_heads(queries, keys) && op.sequences.rows == 1 && op.sequences.tokens == 1 &&
         same_rows(op.sequences, query.sequences) && same_heads(op.q, query.out) && same_heads(op.k, key.out) &&
         apart(attended, {queries.norm.x, keys.norm.x, op.v}) &&
         // Blocks write them in any order.
         apart(made, {op.v}) && apart(made, attended) && apart({op.out}, {op.row_max, op.row_sum, op.pages}) &&
         apart({op.row_max}, {op.row_sum, op.pages}) && apart({op.row_sum}, {op.pages});
}

}  // namespace

bool step_attention(const NormedTurn& queries, const NormedTurn& keys, const SoftmaxAttention& op, Cuda& cuda) {
  if (!fit(queries, keys, op)) return false;
  cuda.op = kOpIndex<SoftmaxAttention>;
  const AttentionView x = attention_view(op, cuda);
  const DecodePlan plan = plan_decode(x, 1, cuda);
  // Blocks that have keys and merge wait for blocks that begin later: they must not fill the GPU.
  const int waiting = (std::min({kMostMergers, x.group, plan.splits}) - 1) * x.kv_heads;
  if (waiting >= cuda.properties.multiprocessors || !has_key_boxes(x, cuda) || !supports_mma(x) || !x.pieces ||
      x.bias || x.sink_tokens > 0 || x.group > kMostGroup || x.heads * plan.splits > kMostParts) {
    return false;
  }
  bool launched = false;
  for_float(x.q_type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) launched = launch_width<T>(x, plan, queries, keys, cuda);
  });
  return launched;
}

}  // namespace linattn::cuda
