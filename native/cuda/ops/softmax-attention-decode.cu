// softmaxAttention of decode rows in 16 bits: as many blocks as the GPU holds take the splits of all rows in turn. The
// warps of a block share the keys of a tile for the scores, and the columns for the weighted values.
#include "cuda/device/launch.cuh"
#include "cuda/ops/softmax-attention-mma.cuh"

namespace linattn::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;

// Tiles of keys are there or under way in kStages.
template <class T, int kWidth, int kRowTiles, int kStages>
struct DecodeShared {
  static constexpr int kKeys = kWidth <= 128 ? 64 : 32;  // of a tile
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kScoreStride = kKeys + 8;  // no bank conflicts, rows aligned to 16 bytes
  alignas(1024) T queries[kRows * kWidth];
  T keys[kStages][kKeys * kWidth];
  T values[kStages][kKeys * kWidth];
  alignas(16) T weights[kRows * kScoreStride];
  float scores[kRows * kScoreStride];
  float max[kRows], sum[kRows], keep[kRows];
  int64_t offsets[kStages][kKeys];
};

// The raw scores of the block's query rows with a tile of keys.
template <class T, int kWidth, int kRowTiles, int kStages>
__device__ __forceinline__ void score_tile(DecodeShared<T, kWidth, kRowTiles, kStages>& shared, const T* keys) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  constexpr int kN = Shared::kKeys / kWarps / 8;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float sums[kRowTiles][kN][4]{};
#pragma unroll
  for (int d = 0; d < kWidth; d += 32) {
    uint32_t b[kN][4];
#pragma unroll
    for (int n = 0; n < kN; n++) {
      load_tiles_x4(b[n], keys + tile_place<kWidth>((warp * kN + n) * 8 + lane % 8, d / kPiece + lane / 8));
    }
#pragma unroll
    for (int part = 0; part < 2; part++) {
#pragma unroll
      for (int m = 0; m < kRowTiles; m++) {
        uint32_t a[4];
        load_tiles_x4(a, shared.queries + tile_place<kWidth>(m * 16 + lane % 16, d / kPiece + 2 * part + lane / 16));
#pragma unroll
        for (int n = 0; n < kN; n++) mma_16x8x16<T>(sums[m][n], a, {b[n][2 * part], b[n][2 * part + 1]});
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; m++) {
#pragma unroll
    for (int n = 0; n < kN; n++) {
      float* const to = shared.scores + (m * 16 + lane / 4) * Shared::kScoreStride + (warp * kN + n) * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to) = make_float2(sums[m][n][0], sums[m][n][1]);
      *reinterpret_cast<float2*>(to + 8 * Shared::kScoreStride) = make_float2(sums[m][n][2], sums[m][n][3]);
    }
  }
}

// Scores to weights, with what the earlier weighted values are to be multiplied by. A row belongs to the threads next
// to one another that share it.
template <class T, int kWidth, int kRowTiles, int kStages>
__device__ __forceinline__ void weigh_tile(DecodeShared<T, kWidth, kRowTiles, kStages>& shared, const AttentionView& x,
                                           int first_key, int position, bool present, float slope) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  constexpr int kSharers = kThreads / Shared::kRows, kEach = Shared::kKeys / kSharers;
  const int r = threadIdx.x / kSharers, sharer = threadIdx.x % kSharers;
  float scores[kEach];
  float largest = shared.max[r];
  const float before = largest;
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const int key = i * kSharers + sharer, apart = position - first_key - key;
    const bool seen = present && apart >= 0 && (x.window == 0 || apart < x.window);
    const float score = shared.scores[r * Shared::kScoreStride + key] * x.scale - slope * static_cast<float>(apart);
    scores[i] = seen ? score : -INFINITY;
    largest = fmaxf(largest, scores[i]);
  }
#pragma unroll
  for (int apart = 1; apart < kSharers; apart *= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, apart));
  }
  const float shift = largest == -INFINITY ? 0.0f : largest * kLog2E;
  float total = 0;
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const float weight = exp2_fast(scores[i] * kLog2E - shift);
    total += weight;
    shared.weights[r * Shared::kScoreStride + i * kSharers + sharer] = from_float<T>(weight);
  }
#pragma unroll
  for (int apart = 1; apart < kSharers; apart *= 2) total += __shfl_xor_sync(kFullMask, total, apart);
  if (sharer == 0) {
    const float keep = exp2_fast(before * kLog2E - shift);
    shared.keep[r] = keep;
    shared.max[r] = largest;
    shared.sum[r] = shared.sum[r] * keep + total;
  }
}

// Adds the weighted values of a tile, for the warp's columns.
template <class T, int kWidth, int kRowTiles, int kStages>
__device__ __forceinline__ void add_values(DecodeShared<T, kWidth, kRowTiles, kStages>& shared, const T* values,
                                           float (&out)[kRowTiles][kWidth / kWarps / 8][4]) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  constexpr int kN = kWidth / kWarps / 8;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int m = 0; m < kRowTiles; m++) {
    const float keep[2] = {shared.keep[m * 16 + lane / 4], shared.keep[m * 16 + lane / 4 + 8]};
#pragma unroll
    for (int n = 0; n < kN; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) out[m][n][i] *= keep[i / 2];
    }
  }
#pragma unroll
  for (int k = 0; k < Shared::kKeys; k += 16) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; m++) {
      load_tiles_x4(a[m], shared.weights + (m * 16 + lane % 16) * Shared::kScoreStride + k + lane / 16 * kPiece);
    }
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t b[4];
      load_tiles_x4<true>(b, values + tile_place<kWidth>(k + lane % 16, warp * kN + n + lane / 16));
#pragma unroll
      for (int m = 0; m < kRowTiles; m++) {
        mma_16x8x16<T>(out[m][n], a[m], {b[0], b[1]});
        mma_16x8x16<T>(out[m][n + 1], a[m], {b[2], b[3]});
      }
    }
  }
}

template <class T, int kWidth, int kRowTiles, int kStages>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ AttentionView x, const __grid_constant__ DecodePlan plan, int tiles) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  constexpr int kKeys = Shared::kKeys, kRows = Shared::kRows;
  constexpr int kN = kWidth / kWarps / 8;
  Shared& shared = *dynamic_shared<Shared>();
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int64_t step = gridDim.x;
  wait_for_inputs();
  for (int64_t i = next_item(x, plan, tiles, kRows, blockIdx.x, step); i >= 0;
       i = next_item(x, plan, tiles, kRows, i + step, step)) {
    const DecodeItem item = decode_item(x, plan, tiles, i);
    const AttentionRow row = attention_row(x, item.n);
    const SplitKeys keys = split_keys(x, plan, row, item.split);
    const int begin = keys.begin, end_key = keys.end;
    const int begin_key = max(begin, row.begin_key(x.window));
    const int key_tiles = static_cast<int>(ceil_div(end_key - begin, kKeys));
    const int first_row = item.tile * kRows, rows = min(kRows, row.count * x.group - first_row);
    const T* const pages = static_cast<const T*>(x.pages) + static_cast<int64_t>(item.kv_head) * x.width;

    const auto find_keys = [&](int key_tile) {
      if (key_tile >= key_tiles || thread >= kKeys) return;
      const int key = begin + key_tile * kKeys + thread;
      const bool seen = key >= begin_key && key < end_key;
      shared.offsets[key_tile % kStages][thread] = seen ? key_offset(x, row, key) : -1;
    };
    const auto load_tile = [&](int key_tile) {
      if (key_tile < key_tiles) {
        const int stage = key_tile % kStages;
        load_keys<kWidth, kKeys, kThreads>(shared.keys[stage], pages, shared.offsets[stage], 0, x.width);
        load_keys<kWidth, kKeys, kThreads>(shared.values[stage], pages, shared.offsets[stage], values_apart(x),
                                           x.width);
      }
      copy_async_commit();
    };

    __syncthreads();
    store_new(x, row, item.kv_head, begin, end_key);
    for (int t = 0; t < kStages; t++) find_keys(t);
    if (thread < kRows) {
      shared.max[thread] = -INFINITY;
      shared.sum[thread] = 0;
    }
    load_queries<kWidth, kRows, kThreads>(shared.queries, x, row, item.kv_head, first_row, rows);
    __syncthreads();
    for (int t = 0; t < kStages - 1; t++) load_tile(t);

    constexpr int kSharers = kThreads / kRows;
    const bool present = thread / kSharers < rows;
    const int query_row = first_row + min(rows - 1, thread / kSharers);
    const int position = row.position + query_row / x.group;
    const float slope = x.slopes ? x.slopes[output_row(x, row, item.kv_head, query_row).head] : 0.0f;
    float out[kRowTiles][kN][4]{};
    for (int t = 0; t < key_tiles; t++) {
      copy_async_wait<kStages - 2>();
      __syncthreads();
      load_tile(t + kStages - 1);
      find_keys(t + kStages);
      score_tile(shared, shared.keys[t % kStages]);
      __syncthreads();
      weigh_tile(shared, x, begin + t * kKeys, position, present, slope);
      __syncthreads();
      add_values(shared, shared.values[t % kStages], out);
    }
    copy_async_wait<0>();

    const auto slot = [&](int r) { return item_slot(x, plan, item, row, first_row + r); };
    if (thread < rows) {
      plan.max[slot(thread)] = shared.max[thread];
      plan.sum[slot(thread)] = shared.sum[thread];
    }
#pragma unroll
    for (int m = 0; m < kRowTiles; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int r = m * 16 + half * 8 + lane / 4;
        if (r >= rows) continue;
        float* const to = plan.out + slot(r) * plan.padded;
#pragma unroll
        for (int n = 0; n < kN; n++) {
          const int d = (warp * kN + n) * 8 + lane % 4 * 2;
          if (d >= x.width) continue;
          *reinterpret_cast<float2*>(to + d) = make_float2(out[m][n][2 * half], out[m][n][2 * half + 1]);
        }
      }
    }
  }
}

template <class T, int kWidth, int kRowTiles, int kStages>
void launch_decode(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  using Shared = DecodeShared<T, kWidth, kRowTiles, kStages>;
  const int tiles = static_cast<int>(ceil_div(std::max(1, plan.row_tokens) * x.group, Shared::kRows));
  const int64_t items = static_cast<int64_t>(plan.rows) * x.kv_heads * tiles * plan.splits;
  const int64_t resident = std::max<int64_t>(1, cuda.properties.shared_memory / (sizeof(Shared) + 1024));
  const int64_t blocks = std::min(items, resident * cuda.properties.multiprocessors);
  launch_early(cuda, decode_kernel<T, kWidth, kRowTiles, kStages>, static_cast<unsigned>(blocks), kThreads,
               sizeof(Shared), x, plan, tiles);
}

// Row tiles for the rows that there are, and as many stages as the shared memory has room for.
template <class T, int kWidth>
void launch_width(const AttentionView& x, const DecodePlan& plan, Cuda& cuda) {
  constexpr int kStages = kWidth <= 64 ? 4 : 3, kFewStages = 2;
  const int rows = std::max(1, plan.row_tokens) * x.group;
  const auto fits = [&](size_t bytes) { return bytes <= static_cast<size_t>(cuda.properties.shared_memory); };
  if (rows <= 16) {
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
