// softmaxAttention of decode rows in 16 bits: as many blocks as the GPU holds take the splits of all rows in turn. The
// warps of a block share the keys of a tile for the scores, and the columns for the weighted values.
#include "cuda/device/launch.cuh"
#include "cuda/ops/softmax-attention-decode.cuh"

namespace linattn::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;

// Tiles of keys are there or under way in kStages.
template <class T, int kWidth, int kRowTiles, int kStages>
struct DecodeShared {
  static constexpr int kKeys = kWidth <= 128 ? 64 : 32;  // of a tile
  static constexpr int kRows = 16 * kRowTiles;
  alignas(1024) T queries[kRows * kWidth];
  T keys[kStages][kKeys * kWidth];
  T values[kStages][kKeys * kWidth];
  DecodeRows<T, kWidth, kRowTiles, kKeys, kWarps> rows;
  int64_t offsets[kStages][kKeys];
};

// `general`: there may be sinks and a learned bias.
template <class T, int kWidth, int kRowTiles, int kStages, bool general>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan, int tiles) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  constexpr int kKeys = Shared::kKeys, kRows = Shared::kRows;
  Shared& shared = *dynamic_shared<Shared>();
  const int thread = static_cast<int>(threadIdx.x);
  const int step = static_cast<int>(gridDim.x);
  wait_for_inputs();
  for (int i = static_cast<int>(blockIdx.x); (i = next_item(x, plan, tiles, kRows, i, step)) >= 0; i += step) {
    const DecodeItem item = decode_item(x, plan, tiles, i);
    const AttentionRow row = attention_row(x, item.n);
    const KeyRange keys = split_keys(x, plan, row, item.split);
    const int begin_key = max(keys.begin, row.begin_key(x.window));
    const int sink_end = general && item.split == 0 ? min(x.sink_tokens, begin_key) : 0;
    const KeyTiles<kKeys> key_tiles(sink_end, {begin_key, keys.end}, keys.begin);
    const int first_row = item.tile * kRows, rows = min(kRows, row.count * x.group - first_row);
    const T* const pages = static_cast<const T*>(x.pages) + static_cast<int64_t>(item.kv_head) * x.width;

    const auto find_keys = [&](int key_tile) {
      if (key_tile >= key_tiles.count || thread >= kKeys) return;
      const int key = key_tiles.first_key(key_tile) + thread;
      shared.offsets[key_tile % kStages][thread] = key_tiles.range(key_tile).has(key) ? key_offset(x, row, key) : -1;
    };
    const auto load_tile = [&](int key_tile) {
      if (key_tile < key_tiles.count) {
        const int stage = key_tile % kStages;
        load_keys<kWidth, kKeys, kThreads>(shared.keys[stage], pages, shared.offsets[stage], 0, x.width);
        load_keys<kWidth, kKeys, kThreads>(shared.values[stage], pages, shared.offsets[stage], values_apart(x),
                                           x.width);
      }
      copy_async_commit();
    };

    __syncthreads();
    store_new(x, row, item.kv_head, keys.begin, keys.end);
    for (int t = 0; t < kStages; t++) find_keys(t);
    if (thread < kRows) {
      shared.rows.max[thread] = -INFINITY;
      shared.rows.sum[thread] = 0;
    }
    load_queries<kWidth, kRows, kThreads>(shared.queries, x, row, item.kv_head, first_row, rows);
    __syncthreads();
    for (int t = 0; t < kStages - 1; t++) load_tile(t);

    constexpr int kSharers = decltype(shared.rows)::kSharers;
    const bool present = thread / kSharers < rows;
    const int query_row = first_row + min(rows - 1, thread / kSharers);
    const int position = row.position + quotient(query_row, x.group);
    const int head = output_row(x, row, item.kv_head, query_row).head;
    const float slope = x.slopes ? x.slopes[head] : 0.0f;
    const float* const bias = x.bias + head * x.bias_stride;
    typename decltype(shared.rows)::Sums out{};
    for (int t = 0; t < key_tiles.count; t++) {
      copy_async_wait<kStages - 2>();
      __syncthreads();
      load_tile(t + kStages - 1);
      find_keys(t + kStages);
      const auto place = [](const T* tile) {
        return [tile](int r, int piece) { return tile + tile_place<kWidth>(r, piece); };
      };
      score_tile(shared.rows, place(shared.queries), place(shared.keys[t % kStages]));
      __syncthreads();
      weigh_tile<general>(shared.rows, x, key_tiles.first_key(t), key_tiles.range(t), position, present, slope, bias);
      __syncthreads();
      add_values(shared.rows, place(shared.values[t % kStages]), out);
    }
    copy_async_wait<0>();

    write_part(shared.rows, x, plan, item, row, first_row, rows, out);
  }
}

template <class T, int kWidth, int kRowTiles, int kStages, bool general = false>
void launch_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  const int tiles = static_cast<int>(ceil_div(std::max(1, plan.row_tokens) * x.group, Shared::kRows));
  const int64_t items = static_cast<int64_t>(plan.rows) * x.kv_heads * tiles * plan.splits;
  const int64_t resident = std::max<int64_t>(1, cuda.properties.shared_memory / (sizeof(Shared) + 1024));
  const int64_t blocks = std::min(items, resident * cuda.properties.multiprocessors);
  launch_early(cuda, decode_kernel<T, kWidth, kRowTiles, kStages, general>, static_cast<unsigned>(blocks), kThreads,
               sizeof(Shared), x, plan, tiles);
}

// Row tiles for the rows that there are, and as many stages as the shared memory has room for.
template <class T, int kWidth>
void launch_width(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  constexpr int kStages = kWidth <= 64 ? 4 : 3, kFewStages = 2;
  const int rows = std::max(1, plan.row_tokens) * x.group;
  const auto fits = [&](size_t bytes) { return bytes <= static_cast<size_t>(cuda.properties.shared_memory); };
  if (x.bias || x.sink_tokens > 0) {
    rows <= 16 && fits(sizeof(DecodeShared<T, kWidth, 1, kStages>))
        ? launch_decode<T, kWidth, 1, kStages, true>(x, plan, cuda)
        : launch_decode<T, kWidth, 2, kFewStages, true>(x, plan, cuda);
  } else if (rows <= 16) {
    fits(sizeof(DecodeShared<T, kWidth, 1, kStages>)) ? launch_decode<T, kWidth, 1, kStages>(x, plan, cuda)
                                                      : launch_decode<T, kWidth, 1, kFewStages>(x, plan, cuda);
  } else if (rows > 32 && fits(sizeof(DecodeShared<T, kWidth, 4, kStages>))) {
    launch_decode<T, kWidth, 4, kStages>(x, plan, cuda);
  } else {
    fits(sizeof(DecodeShared<T, kWidth, 2, kStages>)) ? launch_decode<T, kWidth, 2, kStages>(x, plan, cuda)
                                                      : launch_decode<T, kWidth, 2, kFewStages>(x, plan, cuda);
  }
}

}  // namespace

void run_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  for_float(x.q_type, [&](auto value) {
    using T = decltype(value);
    if constexpr (sizeof(T) == 2) {
      x.width <= 64    ? launch_width<T, 64>(x, plan, cuda)
      : x.width <= 128 ? launch_width<T, 128>(x, plan, cuda)
                       : launch_width<T, 256>(x, plan, cuda);
    }
  });
}

}  // namespace linattn::cuda
