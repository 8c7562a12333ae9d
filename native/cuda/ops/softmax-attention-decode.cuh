// A tile of keys and the query rows of a block, for the decode kernels of softmaxAttention in 16 bits. The warps share
// the keys for the scores, and the columns for the weighted values.
#pragma once
#include <cstring>

#include "cuda/ops/softmax-attention-mma.cuh"

namespace linattn::cuda {

// Of 16 kRowTiles query rows, in shared memory: what a tile leaves for its next step and for the next tile.
template <class T, int kWidthGiven, int kRowTilesGiven, int kKeysGiven, int kWarpsGiven>
struct DecodeRows {
  using Value = T;
  static constexpr int kWidth = kWidthGiven, kRowTiles = kRowTilesGiven, kKeys = kKeysGiven, kWarps = kWarpsGiven;
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kSharers = kWarps * kWarp / kRows;   // threads of a row
  static constexpr int kColumnTiles = kWidth / kWarps / 8;  // of a warp
  static constexpr int kScoreStride = kKeys + 8;            // no bank conflicts, rows aligned to 16 bytes
  using Sums = float[kRowTiles][kColumnTiles][4];
  alignas(16) T weights[kRows * kScoreStride];
  float scores[kRows * kScoreStride];
  float max[kRows], sum[kRows], keep[kRows];
};

// The raw scores of the block's query rows with a tile of keys; query_at and key_at give the address of a row's piece.
template <class Rows, class QueryAt, class KeyAt>
__device__ __forceinline__ void score_tile(Rows& shared, QueryAt query_at, KeyAt key_at) {
  using T = typename Rows::Value;
  constexpr int kRowTiles = Rows::kRowTiles, kN = Rows::kKeys / Rows::kWarps / 8;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float sums[kRowTiles][kN][4]{};
#pragma unroll
  for (int d = 0; d < Rows::kWidth; d += 32) {
    uint32_t b[kN][4];
#pragma unroll
    for (int n = 0; n < kN; n++) {
      load_tiles_x4(b[n], key_at((warp * kN + n) * 8 + lane % 8, d / kHalfPiece + lane / 8));
    }
#pragma unroll
    for (int part = 0; part < 2; part++) {
#pragma unroll
      for (int m = 0; m < kRowTiles; m++) {
        uint32_t a[4];
        load_tiles_x4(a, query_at(m * 16 + lane % 16, d / kHalfPiece + 2 * part + lane / 16));
#pragma unroll
        for (int n = 0; n < kN; n++) mma_16x8x16<T>(sums[m][n], a, {b[n][2 * part], b[n][2 * part + 1]});
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRowTiles; m++) {
#pragma unroll
    for (int n = 0; n < kN; n++) {
      float* const to = shared.scores + (m * 16 + lane / 4) * Rows::kScoreStride + (warp * kN + n) * 8 + lane % 4 * 2;
      *reinterpret_cast<float2*>(to) = make_float2(sums[m][n][0], sums[m][n][1]);
      *reinterpret_cast<float2*>(to + 8 * Rows::kScoreStride) = make_float2(sums[m][n][2], sums[m][n][3]);
    }
  }
}

// Scores to weights, with what the earlier weighted values are to be multiplied by. A row belongs to the threads next
// to one another that share it. `general`: a tile may have sinks or keys
// that are not of its range, and a learned bias, that of the row's head in `bias`.
template <bool general, class Rows>
__device__ __forceinline__ void weigh_tile(Rows& shared, const AttentionView& x, int first_key, KeyRange range,
                                           int position, bool present, float slope, const float* bias) {
  using T = typename Rows::Value;
  constexpr int kSharers = Rows::kSharers, kEach = Rows::kKeys / kSharers;
  const int r = threadIdx.x / kSharers, sharer = threadIdx.x % kSharers;
  float scores[kEach];
  float largest = shared.max[r];
  const float before = largest;
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const int key = i * kSharers + sharer, apart = position - first_key - key;
    const bool seen = present && (general ? sees(x, range, first_key + key, apart)
                                          : apart >= 0 && (x.window == 0 || apart < x.window));
    float score = shared.scores[r * Rows::kScoreStride + key] * x.scale - slope * static_cast<float>(apart);
    if (general && x.bias) score += distance_bias(x, bias, apart);
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
    shared.weights[r * Rows::kScoreStride + i * kSharers + sharer] = from_float<T>(weight);
  }
#pragma unroll
  for (int apart = 1; apart < kSharers; apart *= 2) total += __shfl_xor_sync(kFullMask, total, apart);
  __syncwarp();  // all have read the maximum
  if (sharer == 0) {
    const float keep = exp2_fast(before * kLog2E - shift);
    shared.keep[r] = keep;
    shared.max[r] = largest;
    shared.sum[r] = shared.sum[r] * keep + total;
  }
}

// Adds the weighted values of a tile, for the warp's columns.
template <class Rows, class ValueAt>
__device__ __forceinline__ void add_values(Rows& shared, ValueAt value_at, typename Rows::Sums& out) {
  using T = typename Rows::Value;
  constexpr int kRowTiles = Rows::kRowTiles, kN = Rows::kColumnTiles;
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
  for (int k = 0; k < Rows::kKeys; k += 16) {
    uint32_t a[kRowTiles][4];
#pragma unroll
    for (int m = 0; m < kRowTiles; m++) {
      load_tiles_x4(a[m], shared.weights + (m * 16 + lane % 16) * Rows::kScoreStride + k + lane / 16 * kHalfPiece);
    }
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t b[4];
      load_tiles_x4<true>(b, value_at(k + lane % 16, warp * kN + n + lane / 16));
#pragma unroll
      for (int m = 0; m < kRowTiles; m++) {
        mma_16x8x16<T>(out[m][n], a[m], {b[0], b[1]});
        mma_16x8x16<T>(out[m][n + 1], a[m], {b[2], b[3]});
      }
    }
  }
}

// The output of the `rows` query rows from first_row on, or what the merge needs of them.
template <class Rows>
__device__ __forceinline__ void write_part(Rows& shared, const AttentionView& x, const DecodePlan& plan,
                                           const DecodeItem& item, const AttentionRow& row, int first_row, int rows,
                                           const typename Rows::Sums& out) {
  using T = typename Rows::Value;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const bool whole = plan.finishes && key_splits(x, plan, row).count() == 1;
  const auto slot = [&](int r) { return item_slot(x, plan, item, row, first_row + r); };
  if (!whole && thread < rows) {
    plan.max[slot(thread)] = shared.max[thread];
    plan.sum[slot(thread)] = shared.sum[thread];
  }
#pragma unroll
  for (int m = 0; m < Rows::kRowTiles; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int r = m * 16 + half * 8 + lane / 4;
      if (r >= rows) continue;
      const OutputRow at = output_row(x, row, item.kv_head, first_row + r);
      const float factor = whole ? finish_row(x, at, shared.max[r], shared.sum[r], warp == 0 && lane % 4 == 0) : 1.0f;
      T* const output = static_cast<T*>(x.out) + at.token * x.out_stride + static_cast<int64_t>(at.head) * x.width;
      float* const part = whole ? nullptr : plan.out + slot(r) * plan.padded;
#pragma unroll
      for (int n = 0; n < Rows::kColumnTiles; n++) {
        const int d = (warp * Rows::kColumnTiles + n) * 8 + lane % 4 * 2;
        if (d >= x.width) continue;
        const float2 values = make_float2(out[m][n][2 * half], out[m][n][2 * half + 1]);
        if (whole) {
          const T pair[2] = {from_float<T>(values.x * factor), from_float<T>(values.y * factor)};
          uint32_t word;
          memcpy(&word, pair, sizeof word);
          *reinterpret_cast<uint32_t*>(output + d) = word;
        } else {
          *reinterpret_cast<float2*>(part + d) = values;
        }
      }
    }
  }
}

}  // namespace linattn::cuda
