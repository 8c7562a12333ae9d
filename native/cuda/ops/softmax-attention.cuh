// What the kernels of softmaxAttention share: the op as a kernel argument, the rows of the batch, where the keys of a
// row lie, and the splits of a row's keys. A row (sequence) of at most decode_tokens new tokens takes the decode
// kernels, any other prefill; the device decides, so that the bits of a row do not depend on the rest of the batch. The
// query rows of a row and key head are numbered token * group + head of the group: all of them read the same keys.
#pragma once
#include "cuda/cuda.h"
#include "cuda/device/exp2.cuh"
#include "cuda/device/float.cuh"
#include "cuda/device/sequences.cuh"
#include "ops/softmax-attention.h"

namespace linattn::cuda {

struct AttentionView {
  SequencesView sequences;
  int single_rows, max_tokens;
  const void *q, *k, *v;
  void *pages, *out;
  DType q_type, k_type, v_type, page_type;
  int64_t q_stride, k_stride, v_stride, out_stride, page_stride;  // in elements
  int page_count, page_tokens;
  const int32_t *page_table, *table_rows;
  int64_t table_stride;
  int table_count, table_pages;  // rows, pages of one
  const float *sinks, *slopes;   // null: none
  const float* bias;             // of heads and distances, null: none
  int64_t bias_stride;
  int last_bias;             // distance
  float *row_max, *row_sum;  // null: not wanted
  int64_t max_stride, sum_stride;
  int heads, kv_heads, group, width, window;
  int sink_tokens, sink_pages;  // of a table row, before the ring
  float scale;
  int decode_tokens;
  bool pieces;  // k and v go to the pages as they are, in pieces of 16 bytes
  Fault* fault;
};

// Keys in spans of so many are dealt out to the splits of a decode row.
constexpr int kSpanKeys = 64;
// Splits of a row of more spans have two at least: beginning and merging one costs as much as a span.
constexpr int kFewSpans = 32;

// What the decode kernels leave for the merge: for each query row and split the sum of e^(score - max) * value at
// out[slot * padded], and max[slot] and sum[slot].
struct DecodePlan {
  int rows;           // that may take the decode kernels: the first ones of the batch
  int row_tokens;     // most tokens of one, from single_rows on
  int max_splits;     // of a row of few query rows
  int splits;         // most that a row of this table can have
  int least_spans;    // of a split, unless the row ends: more where many rows share the GPU
  bool finishes;      // the kernel itself writes the output of rows with one split
  int padded;         // width, to a multiple of 4
  int64_t row_slots;  // of a row from single_rows on
  float *out, *max, *sum;
};

AttentionView attention_view(const SoftmaxAttention& op, Cuda& cuda);
// Whether the kernels with matrix instructions take it: 16-bit values, in pieces of 16 bytes.
bool supports_mma(const AttentionView& x);
DecodePlan plan_decode(const AttentionView& x, int rows, Cuda& cuda);

// a / b of counts, and rounded up: without signs and in 32 bits these are short code, where the code of a decode step
// is what takes time.
__host__ __device__ inline int quotient(int a, int b) {
  return static_cast<int>(static_cast<unsigned>(a) / static_cast<unsigned>(b));
}
__host__ __device__ inline int quotient_up(int a, int b) { return quotient(a + b - 1, b); }

// Most splits of a row. With more query rows they are fewer: so many rows fill the GPU, and partial results stay small.
__host__ __device__ inline int most_splits(int max_splits, int query_rows) {
  return max(1, quotient(max_splits, quotient_up(query_rows, 16)));
}

void run_prefill(const AttentionView& x, Cuda& cuda);
void run_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda);
// False, and nothing done, where the GPU or the op has no such kernel.
bool run_wgmma_prefill(const AttentionView& x, Cuda& cuda);
bool run_streamed_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda);
void run_generic_prefill(const AttentionView& x, Cuda& cuda);
void run_generic_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda);

// More than the tiles of `tile_rows` query rows that all prefill rows have, for one key head.
inline int64_t prefill_tiles(const AttentionView& x, int tile_rows) {
  const int64_t tokens = x.sequences.tokens;
  const int64_t rows = std::min<int64_t>(x.sequences.rows - x.single_rows, tokens / (x.decode_tokens + 1));
  return tokens * x.group / tile_rows + rows;
}

struct AttentionRow {
  int first = 0, count = 0;  // packed tokens
  int position = 0;          // of the first one
  int table_row = -1;
  const int32_t* table = nullptr;  // null: dropped

  // Keys that any token sees.
  __device__ int begin_key(int window) const { return window > 0 ? max(0, position - window + 1) : 0; }
  __device__ int end_key() const { return position + count; }
};

// What the batch says of a row.
struct RowWords {
  int first, end, position, table_row;
};

// Row n; without tokens where its offsets make no sense, dropped where its keys have no place. One caller reports.
template <bool reporting = false>
__device__ AttentionRow attention_row(const AttentionView& x, int n, const RowWords& words) {
  const auto complain = [&](FaultKind kind, FaultName name, int value, int low, int limit) {
    if constexpr (reporting) report(x.fault, kind, name, n, value, low, limit);
  };
  AttentionRow row;
  const auto [first, end, position, table_row] = words;
  const int most = n < x.single_rows ? 1 : x.max_tokens;
  if (first < 0 || end < first || end > x.sequences.tokens || end - first > most) {
    complain(FaultKind::kOffsets, FaultName::kRows, end, first, x.sequences.tokens);
    return row;
  }
  row.first = first;
  row.count = end - first;
  if (table_row < -1 || table_row >= x.table_count) {
    complain(FaultKind::kRange, FaultName::kTableRows, table_row, -1, x.table_count);
    return row;
  }
  if (table_row < 0 || row.count == 0) return row;
  if (position < 0 || position > INT32_MAX - row.count) {
    complain(FaultKind::kRange, FaultName::kPositions, position, 0, INT32_MAX - row.count);
    return row;
  }
  row.position = position;
  const int first_page = max(row.begin_key(x.window) / x.page_tokens, x.sink_pages);
  const int pages = (row.end_key() - 1) / x.page_tokens - first_page + 1;
  if (pages > x.table_pages - x.sink_pages) {
    complain(FaultKind::kTooFew, FaultName::kPageTable, x.table_pages, 0, x.sink_pages + pages);
    return row;
  }
  row.table_row = table_row;
  row.table = x.page_table + table_row * x.table_stride;
  return row;
}

template <bool reporting = false>
__device__ AttentionRow attention_row(const AttentionView& x, int n) {
  const int32_t* const offsets = x.sequences.offsets + n;
  return attention_row<reporting>(x, n, {offsets[0], offsets[1], x.sequences.positions[n], x.table_rows[n]});
}

// The entry of a row of the table that has the page of a position.
__device__ __forceinline__ int page_column(const AttentionView& x, int position) {
  const int column = position / x.page_tokens;
  if (column < x.sink_pages) return column;
  return x.sink_pages + (column - x.sink_pages) % (x.table_pages - x.sink_pages);
}

// The page of a position of a row that is not dropped; -1, with a report, where the row has none.
__device__ __forceinline__ int key_page(const AttentionView& x, const AttentionRow& row, int position) {
  const int column = page_column(x, position);
  const int page = row.table[column];
  if (page >= 0 && page < x.page_count) return page;
  report(x.fault, FaultKind::kRange, FaultName::kPageTable, row.table_row * x.table_pages + column, page, 0,
         x.page_count);
  return -1;
}

// Element of `pages` where the keys of all heads begin for a position of a row that is not dropped; the values lie
// page_tokens * kv_heads * width behind. -1, with a report, where the row has no page.
__device__ __forceinline__ int64_t key_offset(const AttentionView& x, const AttentionRow& row, int position) {
  const int page = key_page(x, row, position);
  if (page < 0) return -1;
  return page * x.page_stride + static_cast<int64_t>(position % x.page_tokens) * x.kv_heads * x.width;
}

__device__ __forceinline__ int64_t values_apart(const AttentionView& x) {
  return static_cast<int64_t>(x.page_tokens) * x.kv_heads * x.width;
}

__device__ __forceinline__ float load_element(const void* from, DType type, int64_t i) {
  if (type == DType::kFloat32) return static_cast<const float*>(from)[i];
  if (type == DType::kBFloat16) return as_float(static_cast<const bfloat16*>(from)[i]);
  return as_float(static_cast<const float16*>(from)[i]);
}

__device__ __forceinline__ void store_element(void* to, DType type, int64_t i, float value) {
  if (type == DType::kFloat32) {
    static_cast<float*>(to)[i] = value;
  } else if (type == DType::kBFloat16) {
    static_cast<bfloat16*>(to)[i] = from_float<bfloat16>(value);
  } else {
    static_cast<float16*>(to)[i] = from_float<float16>(value);
  }
}

// Positions [begin, end).
struct KeyRange {
  int begin, end;

  __device__ bool has(int key) const { return key >= begin && key < end; }
};

// The keys of some query rows in tiles of kKeys: the sinks that their windows have left behind, then all others.
template <int kKeys>
struct KeyTiles {
  KeyRange sinks, keys;
  int first;  // key of the first tile of `keys`
  int sink_tiles, count;

  __device__ KeyTiles(int sink_end, KeyRange others, int first_key)
      : sinks{0, sink_end},
        keys(others),
        first(first_key),
        sink_tiles(static_cast<int>(ceil_div(sink_end, kKeys))),
        count(sink_tiles + static_cast<int>(ceil_div(others.end - first_key, kKeys))) {}

  __device__ KeyRange range(int tile) const { return tile < sink_tiles ? sinks : keys; }
  __device__ int first_key(int tile) const {
    return tile < sink_tiles ? tile * kKeys : first + (tile - sink_tiles) * kKeys;
  }
};

// Whether a query sees a key of its tile that lies so far back.
__device__ __forceinline__ bool sees(const AttentionView& x, const KeyRange& range, int key, int apart) {
  return range.has(key) && apart >= 0 && (x.window == 0 || apart < x.window || key < x.sink_tokens);
}

// The learned bias of a head for a key so far back; one that is not seen has any.
__device__ __forceinline__ float distance_bias(const AttentionView& x, const float* of_head, int apart) {
  return of_head[max(0, min(apart, x.last_bias))];
}

// Where in the output a query row lies.
struct OutputRow {
  int token, head;
};

__device__ __forceinline__ OutputRow output_row(const AttentionView& x, const AttentionRow& row, int kv_head,
                                                int query_row) {
  const int token = query_row / x.group;
  return {row.first + token, kv_head * x.group + query_row - token * x.group};
}

// Writes maximum and sum of a row, the sink with them; returns by what its weighted values are multiplied.
__device__ __forceinline__ float finish_row(const AttentionView& x, OutputRow at, float max, float sum,
                                            bool statistics) {
  float top = max, denominator = sum, keep = 1;
  if (x.sinks) {
    const float sink = x.sinks[at.head];
    top = fmaxf(sink, top);
    keep = expf(max - top);
    denominator = denominator * keep + expf(sink - top);
  }
  if (statistics && x.row_max) x.row_max[at.token * x.max_stride + at.head] = top;
  if (statistics && x.row_sum) x.row_sum[at.token * x.sum_stride + at.head] = denominator;
  return keep / denominator;
}

// What a dropped row has: columns begin, begin + step, ... of one head are 0.
__device__ __forceinline__ void clear_row(const AttentionView& x, OutputRow at, int begin, int end, int step) {
  const int64_t to = at.token * x.out_stride + static_cast<int64_t>(at.head) * x.width;
  for (int d = begin; d < end; d += step) store_element(x.out, x.q_type, to + d, 0.0f);
  if (begin != 0) return;
  if (x.row_max) x.row_max[at.token * x.max_stride + at.head] = -INFINITY;
  if (x.row_sum) x.row_sum[at.token * x.sum_stride + at.head] = 0.0f;
}

struct PrefillTile {
  int row, index;  // row -1: there is none
};

__device__ __forceinline__ int row_tiles(const AttentionView& x, const AttentionRow& row, int tile_rows) {
  return static_cast<int>(ceil_div(static_cast<int64_t>(row.count) * x.group, tile_rows));
}

// Tile `i` of `tile_rows` query rows of the prefill rows that `takes` is true for, counted from the last of the last
// row, so that the longest of a prompt come first. Every warp of the block finds it.
template <class Takes>
__device__ __forceinline__ PrefillTile find_tile(const AttentionView& x, int tile_rows, int i, const Takes& takes) {
  const int lane = threadIdx.x % kWarp;
  for (int last = x.sequences.rows - 1; last >= x.single_rows; last -= kWarp) {
    const int n = last - lane;
    int tiles = 0;
    if (n >= x.single_rows) {
      const AttentionRow row = attention_row(x, n);
      if (row.count > x.decode_tokens && takes(row)) tiles = row_tiles(x, row, tile_rows);
    }
    int through = tiles;  // of this row and those after it
#pragma unroll
    for (int apart = 1; apart < kWarp; apart *= 2) {
      const int other = __shfl_up_sync(kFullMask, through, apart);
      if (lane >= apart) through += other;
    }
    const unsigned reached = __ballot_sync(kFullMask, through > i);
    if (reached != 0) {
      const int found = __ffs(static_cast<int>(reached)) - 1;
      return {last - found, __shfl_sync(kFullMask, through, found) - 1 - i};
    }
    i -= __shfl_sync(kFullMask, through, kWarp - 1);
  }
  return {-1, 0};
}

__device__ __forceinline__ PrefillTile find_tile(const AttentionView& x, int tile_rows, int i) {
  return find_tile(x, tile_rows, i, [](const AttentionRow&) { return true; });
}

// The keys of a decode row in splits of whole spans.
struct KeySplits {
  int first_span, spans, each;  // spans of all, of one split
  int most;                     // splits that the row has slots for

  __device__ int count() const { return quotient_up(spans, each); }
};

__device__ __forceinline__ KeySplits key_splits(const AttentionView& x, const DecodePlan& plan,
                                                const AttentionRow& row) {
  if (!row.table || row.count == 0 || row.count > x.decode_tokens) return {0, 0, 1, 1};
  const int first = row.begin_key(x.window) / kSpanKeys;
  const int spans = (row.end_key() - 1) / kSpanKeys + 1 - first;
  const int most = most_splits(plan.max_splits, row.count * x.group);
  const int each = max(quotient_up(spans, most), max(plan.least_spans, spans > kFewSpans ? 2 : 1));
  return {first, spans, each, min(most, plan.splits)};
}

// The keys of a split, but for the sinks that the window has left behind: those are of the first one.
__device__ __forceinline__ KeyRange split_keys(const AttentionView& x, const DecodePlan& plan, const AttentionRow& row,
                                               int split) {
  const KeySplits splits = key_splits(x, plan, row);
  const int64_t begin = (splits.first_span + static_cast<int64_t>(split) * splits.each) * kSpanKeys;
  const int64_t end = begin + static_cast<int64_t>(splits.each) * kSpanKeys;
  return {static_cast<int>(begin), static_cast<int>(end < row.end_key() ? end : row.end_key())};
}

// Where the parts of a query row begin, split by split.
__device__ __forceinline__ int64_t row_slots(const AttentionView& x, const DecodePlan& plan, const AttentionRow& row,
                                             int n, OutputRow at) {
  const int64_t singles = static_cast<int64_t>(x.heads) * plan.splits;
  const int64_t begin =
      n < x.single_rows ? n * singles : x.single_rows * singles + (n - x.single_rows) * plan.row_slots;
  return begin + (static_cast<int64_t>(at.token - row.first) * x.heads + at.head) * key_splits(x, plan, row).most;
}

// A part of the work of the decode kernels: some query rows of a row and key head, and a split of its keys.
struct DecodeItem {
  int n, kv_head, tile, split;
};

__device__ __forceinline__ DecodeItem decode_item(const AttentionView& x, const DecodePlan& plan, int tiles, int i) {
  const int across = plan.rows * x.kv_heads * tiles, split = quotient(i, across), rest = i - split * across;
  const int row_head = quotient(rest, tiles), n = quotient(row_head, x.kv_heads);
  return {n, row_head - n * x.kv_heads, rest - row_head * tiles, split};
}

// Where the part of a query row goes.
__device__ __forceinline__ int64_t item_slot(const AttentionView& x, const DecodePlan& plan, const DecodeItem& item,
                                             const AttentionRow& row, int query_row) {
  return row_slots(x, plan, row, item.n, output_row(x, row, item.kv_head, query_row)) + item.split;
}

// The first item from `i` on, in steps of `step`, that there is; -1 for none. A row has `tiles` tiles of `tile_rows`
// query rows at most. Splits are the slow index: items that there are not come last. Every warp of the block finds it.
// There are no more items than parts, for which there is memory: 32 bits count them.
__device__ __forceinline__ int next_item(const AttentionView& x, const DecodePlan& plan, int tiles, int tile_rows,
                                         int i, int step) {
  const int items = plan.rows * x.kv_heads * tiles * plan.splits;
  for (; i < items; i += kWarp * step) {
    const int mine = i + static_cast<int>(threadIdx.x % kWarp) * step;
    bool there = false;
    if (mine < items) {
      const DecodeItem item = decode_item(x, plan, tiles, mine);
      const AttentionRow row = attention_row(x, item.n);
      there = item.split < key_splits(x, plan, row).count() && item.tile * tile_rows < row.count * x.group;
    }
    const unsigned found = __ballot_sync(kFullMask, there);
    if (found != 0) return i + (__ffs(static_cast<int>(found)) - 1) * step;
  }
  return -1;
}

// The new keys and values of a row and head whose positions are in [begin, end) go to their pages; then the block may
// read them there. All threads of the block.
__device__ __forceinline__ void store_new(const AttentionView& x, const AttentionRow& row, int kv_head, int begin,
                                          int end) {
  begin = max(begin, row.position);
  end = min(end, row.end_key());
  if (begin >= end) return;
  for (int position = begin; position < end; position++) {
    const int64_t key = key_offset(x, row, position);
    if (key < 0) continue;
    const int64_t token = row.first + position - row.position, head = static_cast<int64_t>(kv_head) * x.width;
    for (int d = threadIdx.x; d < x.width; d += blockDim.x) {
      const float k = load_element(x.k, x.k_type, token * x.k_stride + head + d);
      const float v = load_element(x.v, x.v_type, token * x.v_stride + head + d);
      store_element(x.pages, x.page_type, key + head + d, k);
      store_element(x.pages, x.page_type, key + values_apart(x) + head + d, v);
    }
  }
  __threadfence();
  __syncthreads();
}

}  // namespace linattn::cuda
