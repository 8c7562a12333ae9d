// softmaxAttention: decides which kernels take the op, writes the new keys and values of prefill rows into the pages,
// and merges the splits of decode rows.
#include <algorithm>

#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/softmax-attention.cuh"
#include "ops/softmax-attention.h"

namespace linattn::cuda {
namespace {

constexpr int kStoreWarps = 8;
constexpr int kMergeColumns = 64;  // of a block
constexpr int kMergeGroups = 16;   // of threads, each with every 16th split
constexpr int kMostSplits = 64;

bool aligned(const void* data, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride_bytes % 16 == 0;
}

// Whether keys and values go to the pages as they are, in pieces of 16 bytes.
bool stores_pieces(const AttentionView& x) {
  const int64_t bytes = dtype_bytes(x.page_type);
  if (x.k_type != x.page_type || x.v_type != x.page_type || x.kv_heads * x.width * bytes % 16 != 0) return false;
  return aligned(x.k, bytes * x.k_stride) && aligned(x.v, bytes * x.v_stride) &&
         aligned(x.pages, bytes * x.page_stride);
}

// A warp for each token: its keys and values to the pages, where its row takes the prefill kernels; 0 to the output
// where no row has it.
__global__ void store_kernel(const __grid_constant__ AttentionView x) {
  const int t = static_cast<int>(blockIdx.x) * kStoreWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  for (int n = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); n < x.sequences.rows;
       n += static_cast<int>(gridDim.x * blockDim.x)) {
    attention_row<true>(x, n);
  }
  if (t >= x.sequences.tokens) return;
  const int n = x.sequences.rows > 0 ? row_of_token(x.sequences, t) : -1;
  if (n < 0) {
    for (int head = 0; head < x.heads; head++) clear_row(x, {t, head}, lane, x.width, kWarp);
    return;
  }
  const AttentionRow row = attention_row(x, n);
  if (!row.table || row.count <= x.decode_tokens) return;
  const int64_t key = key_offset(x, row, row.position + t - row.first);
  if (key < 0) return;
  const int64_t k = t * x.k_stride, v = t * x.v_stride;
  const int size = x.kv_heads * x.width;
  if (x.pieces) {
    const int64_t bytes = x.page_type == DType::kFloat32 ? 4 : 2;
    const auto copy = [&](const void* from, int64_t from_offset, int64_t to_offset) {
      const auto* source = reinterpret_cast<const uint4*>(static_cast<const char*>(from) + from_offset * bytes);
      auto* to = reinterpret_cast<uint4*>(static_cast<char*>(x.pages) + to_offset * bytes);
      for (int i = lane; i < size * bytes / 16; i += kWarp) to[i] = source[i];
    };
    copy(x.k, k, key);
    copy(x.v, v, key + values_apart(x));
    return;
  }
  for (int i = lane; i < size; i += kWarp) {
    store_element(x.pages, x.page_type, key + i, load_element(x.k, x.k_type, k + i));
    store_element(x.pages, x.page_type, key + values_apart(x) + i, load_element(x.v, x.v_type, v + i));
  }
}

// Blocks for each token of the decode rows, head and its columns, all or kMergeColumns of them; one token more for
// those that no row has.
__global__ void merge_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan,
                             int tokens) {
  __shared__ float maxima[kMostSplits], totals[kMostSplits], weights[kMostSplits];
  __shared__ float4 sums[kMergeGroups][kMergeColumns / 4];
  const int j = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int begin = static_cast<int>(blockIdx.z) * kMergeColumns;
  const int end = gridDim.z == 1 ? x.width : min(x.width, begin + kMergeColumns);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  wait_for_inputs();
  if (j == tokens) {
    for (int t = thread; t < x.sequences.tokens; t += threads) {
      const bool outside = t < x.sequences.offsets[0] || t >= x.sequences.offsets[x.sequences.rows];
      if (outside) clear_row(x, {t, head}, begin, end, 1);
    }
    return;
  }
  const int beyond = j - x.single_rows;
  const int n = beyond < 0 ? j : x.single_rows + beyond / plan.row_tokens;
  const int token = beyond < 0 ? 0 : beyond % plan.row_tokens;
  const AttentionRow row = attention_row<true>(x, n);
  if (token >= row.count || row.count > x.decode_tokens) return;
  const OutputRow at{row.first + token, head};
  if (!row.table) return clear_row(x, at, begin + thread, end, threads);

  const int splits = key_splits(x, plan, row).count();
  if (plan.finishes && splits == 1) return;
  const int64_t slot = row_slots(x, plan, row, n, at);
  const int column = thread % (kMergeColumns / 4), group = thread / (kMergeColumns / 4);
  for (int first_column = begin; first_column < end; first_column += kMergeColumns) {
    const bool inside = first_column + 4 * column < end;
    __syncthreads();
    float4 parts[kMostSplits / kMergeGroups];
#pragma unroll
    for (int i = 0; i < kMostSplits / kMergeGroups; i++) {
      const int s = group + i * kMergeGroups;
      if (!inside || s >= splits) continue;
      parts[i] = *reinterpret_cast<const float4*>(plan.out + (slot + s) * plan.padded + first_column + 4 * column);
    }
    if (thread < splits) {
      maxima[thread] = plan.max[slot + thread];
      totals[thread] = plan.sum[slot + thread];
    }
    __syncthreads();
    float max = -INFINITY;
    for (int s = 0; s < splits; s++) max = fmaxf(max, maxima[s]);
    if (thread < splits) weights[thread] = totals[thread] == 0 ? 0.0f : expf(maxima[thread] - max);
    __syncthreads();
    float4 total{0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kMostSplits / kMergeGroups; i++) {
      const int s = group + i * kMergeGroups;
      if (!inside || s >= splits || weights[s] == 0) continue;
      const float weight = weights[s];
      total.x += weight * parts[i].x;
      total.y += weight * parts[i].y;
      total.z += weight * parts[i].z;
      total.w += weight * parts[i].w;
    }
    sums[group][column] = total;
    __syncthreads();
    if (group != 0 || !inside) continue;
    for (int g = 1; g < kMergeGroups; g++) {
      const float4 part = sums[g][column];
      total.x += part.x;
      total.y += part.y;
      total.z += part.z;
      total.w += part.w;
    }
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += weights[s] * totals[s];
    const float factor = finish_row(x, at, max, sum, first_column + column == 0);
    const float values[4] = {total.x * factor, total.y * factor, total.z * factor, total.w * factor};
    const int64_t to = at.token * x.out_stride + static_cast<int64_t>(head) * x.width + first_column + 4 * column;
    for (int i = 0; i < 4 && first_column + 4 * column + i < end; i++) {
      store_element(x.out, x.q_type, to + i, values[i]);
    }
  }
}

}  // namespace

bool supports_mma(const AttentionView& x) {
  if (x.q_type == DType::kFloat32 || x.q_type != x.page_type || x.width % 8 != 0 || x.width > 256) return false;
  return aligned(x.q, 2 * x.q_stride) && aligned(x.out, 2 * x.out_stride) && aligned(x.pages, 2 * x.page_stride);
}

AttentionView attention_view(const SoftmaxAttention& op, Cuda& cuda) {
  AttentionView x{};
  x.sequences = view_of(op.sequences);
  x.single_rows = op.sequences.single_rows;
  x.max_tokens = op.sequences.max_tokens;
  x.q = op.q.data;
  x.k = op.k.data;
  x.v = op.v.data;
  x.pages = op.pages.data;
  x.out = op.out.data;
  x.q_type = op.q.dtype;
  x.k_type = op.k.dtype;
  x.v_type = op.v.dtype;
  x.page_type = op.pages.dtype;
  x.q_stride = op.q.stride0;
  x.k_stride = op.k.stride0;
  x.v_stride = op.v.stride0;
  x.out_stride = op.out.stride0;
  x.page_stride = op.pages.stride0;
  x.page_count = static_cast<int>(op.pages.shape[0]);
  x.page_tokens = static_cast<int>(op.pages.shape[2]);
  x.page_table = op.page_table.as<const int32_t>();
  x.table_rows = op.table_rows.as<const int32_t>();
  x.table_stride = op.page_table.stride0;
  x.table_count = static_cast<int>(op.page_table.shape[0]);
  x.table_pages = static_cast<int>(op.page_table.shape[1]);
  if (op.sinks) x.sinks = op.sinks.as<const float>();
  if (op.alibi_slopes) x.slopes = op.alibi_slopes.as<const float>();
  if (op.relative_bias) {
    x.bias = op.relative_bias.as<const float>();
    x.bias_stride = op.relative_bias.stride0;
    x.last_bias = static_cast<int>(op.relative_bias.shape[1]) - 1;
  }
  if (op.row_max) x.row_max = op.row_max.as<float>();
  if (op.row_sum) x.row_sum = op.row_sum.as<float>();
  x.max_stride = op.row_max.stride0;
  x.sum_stride = op.row_sum.stride0;
  x.heads = static_cast<int>(op.q.shape[1]);
  x.kv_heads = static_cast<int>(op.k.shape[1]);
  x.group = x.heads / x.kv_heads;
  x.width = static_cast<int>(op.q.shape[2]);
  x.window = op.window;
  x.sink_tokens = op.sink_tokens;
  x.sink_pages = static_cast<int>(op.sink_pages());
  x.scale = op.scale;
  x.decode_tokens = std::max(8, 64 / x.group);
  x.pieces = stores_pieces(x);
  x.fault = cuda.fault();
  return x;
}

DecodePlan plan_decode(const AttentionView& x, int rows, Cuda& cuda) {
  DecodePlan plan{};
  plan.rows = rows;
  plan.row_tokens = std::min(x.decode_tokens, x.max_tokens);
  // A single row gives each multiprocessor a split.
  plan.max_splits = std::clamp(cuda.properties.multiprocessors / x.kv_heads, 8, kMostSplits);
  int64_t keys = static_cast<int64_t>(x.table_pages) * x.page_tokens;
  if (x.window > 0) keys = std::min<int64_t>(keys, static_cast<int64_t>(x.window) + plan.row_tokens);
  // Many rows fill the GPU with fewer splits. Where max_tokens is a bound, splits follow from a row's own length alone.
  plan.least_spans = x.max_tokens == 1 ? std::max(1, rows * x.kv_heads / cuda.properties.multiprocessors) : 1;
  plan.splits = static_cast<int>(std::min<int64_t>(plan.max_splits, keys / kSpanKeys + 2));
  plan.padded = static_cast<int>(ceil_div(x.width, 4) * 4);
  for (int tokens = 1; tokens <= plan.row_tokens; tokens++) {
    const int most = std::min(plan.splits, most_splits(plan.max_splits, tokens * x.group));
    plan.row_slots = std::max(plan.row_slots, static_cast<int64_t>(tokens) * x.heads * most);
  }
  const int singles = std::min(rows, x.single_rows);
  const size_t slots = static_cast<size_t>(singles) * x.heads * plan.splits + (rows - singles) * plan.row_slots;
  plan.out = cuda.scratch_of<float>(slots * plan.padded);
  plan.max = cuda.scratch_of<float>(slots);
  plan.sum = cuda.scratch_of<float>(slots);
  return plan;
}

void run(const SoftmaxAttention& op, Cuda& cuda) {
  if (op.q.size() == 0) return;
  const AttentionView x = attention_view(op, cuda);
  const Sequences& sequences = op.sequences;
  const bool mma = supports_mma(x);

  const bool prefills = sequences.max_tokens > x.decode_tokens || sequences.rows == 0;
  if (prefills) {
    const auto blocks = static_cast<unsigned>(ceil_div(sequences.tokens, kStoreWarps));
    launch(cuda, store_kernel, blocks, kStoreWarps * kWarp, 0, x);
    if (!mma) {
      run_generic_prefill(x, cuda);
    } else if (!run_wgmma_prefill(x, cuda)) {
      run_prefill(x, cuda);
    }
  }
  // A graph may be replayed with other lengths.
  const bool long_one = prefills && !cuda.recording && sequences.rows - sequences.single_rows == 1 &&
                        sequences.tokens - sequences.single_rows > x.decode_tokens;
  const int rows = long_one ? sequences.single_rows : sequences.rows;
  if (rows == 0) return;
  DecodePlan plan = plan_decode(x, rows, cuda);
  plan.finishes = mma;
  if (!mma) {
    run_generic_decode(x, plan, cuda);
  } else if (!run_streamed_decode(x, plan, cuda)) {
    run_decode(x, plan, cuda);
  }
  const int singles = std::min(rows, x.single_rows), tokens = singles + (rows - singles) * plan.row_tokens;
  // Of many tokens most have one split.
  const int64_t parts = tokens < cuda.properties.multiprocessors ? ceil_div(x.width, kMergeColumns) : 1;
  const dim3 grid(static_cast<unsigned>(tokens + 1), static_cast<unsigned>(x.heads), static_cast<unsigned>(parts));
  launch_early(cuda, merge_kernel, grid, kMergeColumns / 4 * kMergeGroups, 0, x, plan, tokens);
}

}  // namespace linattn::cuda
