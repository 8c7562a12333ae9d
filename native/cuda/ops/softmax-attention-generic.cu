// softmaxAttention in float32 arithmetic, of any dtypes, widths and alignments. A warp holds 4 query rows; over a tile
// of 32 keys each lane has one key for the scores, and some columns for the weighted values.
#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/softmax-attention.cuh"

namespace linattn::cuda {
namespace {

constexpr int kKeys = kWarp;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kWarpRows = 4;
constexpr int kRows = kWarps * kWarpRows;
constexpr int kPart = 64;  // columns of keys and queries that are in shared memory at a time

// A block has the output columns [blockIdx.y * kWarp * kLanes, ...) of its query rows.
template <int kLanes>
struct GenericShared {
  float queries[kRows][kPart];
  float keys[kKeys][kPart + 1];  // no bank conflicts
  float values[kKeys][kWarp * kLanes];
  float weights[kRows][kKeys];
  int64_t offsets[kKeys];
};

// Some query rows of a row and key head, and the keys that they are to see.
struct GenericTask {
  AttentionRow row;
  int kv_head, first_row, rows;
  int sink_end;  // keys [0, sink_end) besides `keys`
  KeyRange keys;
};

template <int kLanes>
struct GenericResult {
  float max[kWarpRows], sum[kWarpRows], out[kWarpRows][kLanes];
};

// scores[r] = query row r of the warp times the key of the lane. All threads of the block.
template <int kLanes>
__device__ __forceinline__ void score_keys(GenericShared<kLanes>& shared, const AttentionView& x,
                                           const GenericTask& task, float (&scores)[kWarpRows]) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
#pragma unroll
  for (int r = 0; r < kWarpRows; r++) scores[r] = 0;
  for (int part = 0; part < x.width; part += kPart) {
    const int width = min(kPart, x.width - part);
    if (part > 0) __syncthreads();
    for (int i = thread; i < kKeys * kPart; i += kThreads) {
      const int key = i / kPart, d = i % kPart;
      const int64_t offset = shared.offsets[key];
      if (d >= width) continue;
      const int64_t from = offset + static_cast<int64_t>(task.kv_head) * x.width + part + d;
      shared.keys[key][d] = offset < 0 ? 0.0f : load_element(x.pages, x.page_type, from);
    }
    for (int i = thread; i < kRows * kPart; i += kThreads) {
      const int r = i / kPart, d = i % kPart;
      if (d >= width || r >= task.rows) continue;
      const OutputRow at = output_row(x, task.row, task.kv_head, task.first_row + r);
      const int64_t from = at.token * x.q_stride + static_cast<int64_t>(at.head) * x.width + part + d;
      shared.queries[r][d] = load_element(x.q, x.q_type, from);
    }
    __syncthreads();
#pragma unroll 4
    for (int d = 0; d < width; d++) {
      const float key = shared.keys[lane][d];
#pragma unroll
      for (int r = 0; r < kWarpRows; r++) {
        scores[r] = __fmaf_rn(shared.queries[warp * kWarpRows + r][d], key, scores[r]);
      }
    }
  }
}

// All threads of the block. Rows of the warp from task.rows on see nothing.
template <int kLanes>
__device__ __forceinline__ GenericResult<kLanes> attend(GenericShared<kLanes>& shared, const AttentionView& x,
                                                        const GenericTask& task) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int first_column = static_cast<int>(blockIdx.y) * kWarp * kLanes;
  GenericResult<kLanes> result;
  int positions[kWarpRows];
  float slopes[kWarpRows];
  const float* biases[kWarpRows];
#pragma unroll
  for (int r = 0; r < kWarpRows; r++) {
    result.max[r] = -INFINITY;
    result.sum[r] = 0;
#pragma unroll
    for (int i = 0; i < kLanes; i++) result.out[r][i] = 0;
    const int query_row = task.first_row + warp * kWarpRows + r;
    const bool present = warp * kWarpRows + r < task.rows;
    positions[r] = present ? task.row.position + quotient(query_row, x.group) : -1;
    const int head = present ? output_row(x, task.row, task.kv_head, query_row).head : 0;
    slopes[r] = x.slopes ? x.slopes[head] : 0.0f;
    biases[r] = x.bias + head * x.bias_stride;
  }
  const KeyTiles<kKeys> tiles(task.sink_end, task.keys, task.keys.begin / kKeys * kKeys);
  for (int tile = 0; tile < tiles.count; tile++) {
    const int first_key = tiles.first_key(tile);
    const KeyRange range = tiles.range(tile);
    __syncthreads();
    if (thread < kKeys) {
      const int key = first_key + thread;
      shared.offsets[thread] = range.has(key) ? key_offset(x, task.row, key) : -1;
    }
    __syncthreads();
    for (int i = thread; i < kKeys * kWarp * kLanes; i += kThreads) {
      const int key = i / (kWarp * kLanes), d = first_column + i % (kWarp * kLanes);
      const int64_t offset = shared.offsets[key];
      const int64_t from = offset + values_apart(x) + static_cast<int64_t>(task.kv_head) * x.width + d;
      shared.values[key][d - first_column] =
          offset < 0 || d >= x.width ? 0.0f : load_element(x.pages, x.page_type, from);
    }
    float scores[kWarpRows];
    score_keys(shared, x, task, scores);

#pragma unroll
    for (int r = 0; r < kWarpRows; r++) {
      const int key = first_key + lane, apart = positions[r] - key;
      const bool seen = sees(x, range, key, apart);
      float score = seen ? scores[r] * x.scale - slopes[r] * static_cast<float>(apart) : -INFINITY;
      if (seen && x.bias) score += distance_bias(x, biases[r], apart);
      const float largest = fmaxf(result.max[r], warp_max(score));
      const float shift = largest == -INFINITY ? 0.0f : largest;
      const float weight = seen ? expf(score - shift) : 0.0f;
      const float keep = expf(result.max[r] - shift);
      result.max[r] = largest;
      result.sum[r] = result.sum[r] * keep + warp_sum(weight);
#pragma unroll
      for (int i = 0; i < kLanes; i++) result.out[r][i] *= keep;
      shared.weights[warp * kWarpRows + r][lane] = weight;
    }
    __syncwarp();
    for (int key = 0; key < kKeys; key++) {
      float values[kLanes];
#pragma unroll
      for (int i = 0; i < kLanes; i++) values[i] = shared.values[key][lane + i * kWarp];
#pragma unroll
      for (int r = 0; r < kWarpRows; r++) {
        const float weight = shared.weights[warp * kWarpRows + r][key];
        if (weight == 0) continue;  // a NaN reaches only the rows that see it
#pragma unroll
        for (int i = 0; i < kLanes; i++) result.out[r][i] = __fmaf_rn(weight, values[i], result.out[r][i]);
      }
    }
  }
  return result;
}

template <int kLanes>
__global__ void __launch_bounds__(kThreads) generic_prefill_kernel(const __grid_constant__ AttentionView x) {
  auto& shared = *dynamic_shared<GenericShared<kLanes>>();
  const PrefillTile tile = find_tile(x, kRows, static_cast<int>(blockIdx.x) / x.kv_heads);
  if (tile.row < 0) return;
  GenericTask task;
  task.row = attention_row(x, tile.row);
  task.kv_head = static_cast<int>(blockIdx.x) % x.kv_heads;
  task.first_row = tile.index * kRows;
  task.rows = min(kRows, task.row.count * x.group - task.first_row);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_column = static_cast<int>(blockIdx.y) * kWarp * kLanes;
  GenericResult<kLanes> result;
  if (task.row.table) {
    const int position = task.row.position + task.first_row / x.group;
    task.keys.begin = x.window > 0 ? max(0, position - x.window + 1) : 0;
    task.keys.end = task.row.position + (task.first_row + task.rows - 1) / x.group + 1;
    task.sink_end = min(x.sink_tokens, task.keys.begin);
    result = attend(shared, x, task);
  }
#pragma unroll
  for (int r = 0; r < kWarpRows; r++) {
    if (warp * kWarpRows + r >= task.rows) continue;
    const OutputRow at = output_row(x, task.row, task.kv_head, task.first_row + warp * kWarpRows + r);
    if (!task.row.table) {
      clear_row(x, at, first_column + lane, min(x.width, first_column + kWarp * kLanes), kWarp);
      continue;
    }
    const float share = finish_row(x, at, result.max[r], result.sum[r], first_column + lane == 0);
    const int64_t to = at.token * x.out_stride + static_cast<int64_t>(at.head) * x.width;
#pragma unroll
    for (int i = 0; i < kLanes; i++) {
      const int d = first_column + lane + i * kWarp;
      if (d < x.width) store_element(x.out, x.q_type, to + d, result.out[r][i] * share);
    }
  }
}

template <int kLanes>
__global__ void __launch_bounds__(kThreads)
    generic_decode_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan, int tiles) {
  auto& shared = *dynamic_shared<GenericShared<kLanes>>();
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_column = static_cast<int>(blockIdx.y) * kWarp * kLanes;
  const int step = static_cast<int>(gridDim.x);
  for (int i = static_cast<int>(blockIdx.x); (i = next_item(x, plan, tiles, kRows, i, step)) >= 0; i += step) {
    const DecodeItem item = decode_item(x, plan, tiles, i);
    GenericTask task;
    task.row = attention_row(x, item.n);
    task.kv_head = item.kv_head;
    task.first_row = item.tile * kRows;
    task.rows = min(kRows, task.row.count * x.group - task.first_row);
    const KeyRange keys = split_keys(x, plan, task.row, item.split);
    task.keys = {max(keys.begin, task.row.begin_key(x.window)), keys.end};
    task.sink_end = item.split == 0 ? min(x.sink_tokens, task.keys.begin) : 0;
    store_new(x, task.row, task.kv_head, keys.begin, keys.end);
    const GenericResult<kLanes> result = attend(shared, x, task);
#pragma unroll
    for (int r = 0; r < kWarpRows; r++) {
      if (warp * kWarpRows + r >= task.rows) continue;
      const int64_t slot = item_slot(x, plan, item, task.row, task.first_row + warp * kWarpRows + r);
      if (first_column + lane == 0) {
        plan.max[slot] = result.max[r];
        plan.sum[slot] = result.sum[r];
      }
#pragma unroll
      for (int c = 0; c < kLanes; c++) {
        const int d = first_column + lane + c * kWarp;
        if (d < x.width) plan.out[slot * plan.padded + d] = result.out[r][c];
      }
    }
  }
}

// body(lanes) with the columns of a lane as a constant.
template <class Body>
void for_lanes(const AttentionView& x, Body&& body) {
  if (x.width <= 64) return body(std::integral_constant<int, 2>());
  if (x.width <= 128) return body(std::integral_constant<int, 4>());
  body(std::integral_constant<int, 8>());
}

}  // namespace

void run_generic_prefill(const AttentionView& x, Cuda& cuda) {
  for_lanes(x, [&](auto lanes) {
    const dim3 grid(static_cast<unsigned>(prefill_tiles(x, kRows) * x.kv_heads),
                    static_cast<unsigned>(ceil_div(x.width, kWarp * lanes())));
    launch(cuda, generic_prefill_kernel<lanes()>, grid, kThreads, sizeof(GenericShared<lanes()>), x);
  });
}

void run_generic_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  for_lanes(x, [&](auto lanes) {
    const int tiles = static_cast<int>(ceil_div(std::max(1, plan.row_tokens) * x.group, kRows));
    const int64_t items = static_cast<int64_t>(plan.rows) * x.kv_heads * tiles * plan.splits;
    const dim3 grid(static_cast<unsigned>(std::min<int64_t>(items, 4 * cuda.properties.multiprocessors)),
                    static_cast<unsigned>(ceil_div(x.width, kWarp * lanes())));
    launch(cuda, generic_decode_kernel<lanes()>, grid, kThreads, sizeof(GenericShared<lanes()>), x, plan, tiles);
  });
}

}  // namespace linattn::cuda
