// softmaxAttention of prefill rows in 16 bits, as FlashAttention-2 has it: a block holds 128 query rows and goes over
// their keys in tiles of 64; scores, weights and weighted values stay in the registers of the warp whose rows they are.
#include "cuda/device/launch.cuh"
#include "cuda/ops/softmax-attention-mma.cuh"

namespace linattn::cuda {
namespace {

constexpr int kKeys = 64;

// A warp has one or two tiles of 16 rows: as many as the registers hold the weighted values of. Two blocks share a
// multiprocessor, so that one multiplies while the other waits.
template <int kWidth>
struct PrefillShape {
  static constexpr int kWarps = 4;
  static constexpr int kRowTiles = kWidth <= 128 ? 2 : 1;
  static constexpr int kRows = 16 * kRowTiles * kWarps;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kBlocks = 2;
};

template <class T, int kWidth>
struct PrefillShared {
  alignas(1024) T queries[PrefillShape<kWidth>::kRows * kWidth];
  T keys[kKeys * kWidth];
  T values[kKeys * kWidth];
  int64_t offsets[2][kKeys];
};

// Plain: the scale is positive and part of the exponent. Else scores are scaled one by one, and biased by slopes; any
// may have a learned bias and sinks too, at the price of registers.
enum class Scores { kPlain, kSloped, kAny };

template <class T, int kWidth, Scores kind>
__global__ void __launch_bounds__(PrefillShape<kWidth>::kThreads, PrefillShape<kWidth>::kBlocks)
    prefill_kernel(const __grid_constant__ AttentionView x) {
  using Shape = PrefillShape<kWidth>;
  constexpr int kM = Shape::kRowTiles, kN = kKeys / 8, kRows = Shape::kRows, kThreads = Shape::kThreads;
  const PrefillTile tile = find_tile(x, kRows, static_cast<int>(blockIdx.x) / x.kv_heads);
  if (tile.row < 0) return;
  const int kv_head = static_cast<int>(blockIdx.x) % x.kv_heads;
  const AttentionRow row = attention_row(x, tile.row);
  const int first_row = tile.index * kRows;
  const int rows = min(kRows, row.count * x.group - first_row);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  if (!row.table) {
    for (int r = thread; r < rows; r += kThreads)
      clear_row(x, output_row(x, row, kv_head, first_row + r), 0, x.width, 1);
    return;
  }

  PrefillShared<T, kWidth>& shared = *dynamic_shared<PrefillShared<T, kWidth>>();
  const T* const pages = static_cast<const T*>(x.pages) + static_cast<int64_t>(kv_head) * x.width;
  const int first_position = row.position + first_row / x.group;
  const int last_position = row.position + (first_row + rows - 1) / x.group;
  const int begin_key = x.window > 0 ? max(0, first_position - x.window + 1) : 0;
  const int sink_end = kind == Scores::kAny ? min(x.sink_tokens, begin_key) : 0;
  const KeyTiles<kKeys> tiles(sink_end, {begin_key, last_position + 1}, begin_key / kKeys * kKeys);

  const auto find_keys = [&](int key_tile) {
    if (thread >= kKeys) return;
    const int key = tiles.first_key(key_tile) + thread;
    shared.offsets[key_tile % 2][thread] = tiles.range(key_tile).has(key) ? key_offset(x, row, key) : -1;
  };
  find_keys(0);
  find_keys(1);
  load_queries<kWidth, kRows, kThreads>(shared.queries, x, row, kv_head, first_row, rows);
  __syncthreads();
  load_keys<kWidth, kKeys, kThreads>(shared.keys, pages, shared.offsets[0], 0, x.width);
  copy_async_commit();

  // Query row of (m, half): lane / 4 + 8 half of row tile m of the warp.
  const int warp_row = warp * 16 * kM;
  int positions[kM][2];
  float slopes[kM][2], top[kM][2], sum[kM][2];
#pragma unroll
  for (int m = 0; m < kM; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int query_row = first_row + min(rows - 1, warp_row + m * 16 + half * 8 + lane / 4);
      positions[m][half] = row.position + query_row / x.group;
      slopes[m][half] =
          kind != Scores::kPlain && x.slopes ? x.slopes[output_row(x, row, kv_head, query_row).head] : 0.0f;
      top[m][half] = -INFINITY;
      sum[m][half] = 0;
    }
  }
  float out[kM][kWidth / 8][4];
#pragma unroll
  for (int m = 0; m < kM; m++) {
#pragma unroll
    for (int n = 0; n < kWidth / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) out[m][n][i] = 0;
    }
  }
  const float factor = kind == Scores::kPlain ? x.scale * kLog2E : kLog2E;
  // Where the lane's rows of the tiles of load_tiles_x4 begin, and the exclusive or that finds a piece in them.
  const T* const query_rows = shared.queries + (warp_row + lane % 16) * kWidth;
  const T* const key_rows = shared.keys + (lane % 8 + lane / 16 * 8) * kWidth;
  const T* const value_rows = shared.values + lane % 16 * kWidth;
  const int query_swizzle = (lane / 16 ^ lane % 8) * kHalfPiece;
  const int key_swizzle = (lane / 8 % 2 ^ lane % 8) * kHalfPiece;

  for (int key_tile = 0; key_tile < tiles.count; key_tile++) {
    copy_async_wait<0>();
    __syncthreads();
    load_keys<kWidth, kKeys, kThreads>(shared.values, pages, shared.offsets[key_tile % 2], values_apart(x), x.width);
    copy_async_commit();

    float scores[kM][kN][4];
#pragma unroll
    for (int m = 0; m < kM; m++) {
#pragma unroll
      for (int n = 0; n < kN; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) scores[m][n][i] = 0;
      }
    }
#pragma unroll
    for (int d = 0; d < kWidth; d += 16) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; m++) load_tiles_x4(a[m], query_rows + m * 16 * kWidth + swizzled(d, query_swizzle));
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        uint32_t b[4];
        load_tiles_x4(b, key_rows + n * 8 * kWidth + swizzled(d, key_swizzle));
#pragma unroll
        for (int m = 0; m < kM; m++) {
          mma_16x8x16<T>(scores[m][n], a[m], {b[0], b[1]});
          mma_16x8x16<T>(scores[m][n + 1], a[m], {b[2], b[3]});
        }
      }
    }

    const int tile_key = tiles.first_key(key_tile), first_key = tile_key + lane % 4 * 2;
    const bool whole = tile_key + kKeys - 1 <= first_position && (x.window == 0 || tile_key > last_position - x.window);
    if constexpr (kind == Scores::kAny) {
#pragma unroll
      for (int m = 0; m < kM; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int query_row = first_row + min(rows - 1, warp_row + m * 16 + half * 8 + lane / 4);
          const float* const bias = x.bias + output_row(x, row, kv_head, query_row).head * x.bias_stride;
#pragma unroll
          for (int n = 0; n < kN; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
              const int apart = positions[m][half] - (first_key + n * 8 + i);
              float& score = scores[m][n][2 * half + i];
              score = score * x.scale - slopes[m][half] * static_cast<float>(apart);
              if (x.bias) score += distance_bias(x, bias, apart);
            }
          }
        }
      }
    }
    if (kind == Scores::kSloped || !whole) {
#pragma unroll
      for (int m = 0; m < kM; m++) {
#pragma unroll
        for (int n = 0; n < kN; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int apart = positions[m][i / 2] - (first_key + n * 8 + i % 2);
            float& score = scores[m][n][i];
            if constexpr (kind == Scores::kSloped) {
              score = score * x.scale - slopes[m][i / 2] * static_cast<float>(apart);
            }
            bool seen;
            if constexpr (kind == Scores::kAny) {
              seen = sees(x, tiles.range(key_tile), first_key + n * 8 + i % 2, apart);
            } else {
              seen = apart >= 0 && (x.window == 0 || apart < x.window);
            }
            if (!seen) score = -INFINITY;
          }
        }
      }
    }

    bool changed = false;
    float keep[kM][2];
#pragma unroll
    for (int m = 0; m < kM; m++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float largest = top[m][half];
#pragma unroll
        for (int n = 0; n < kN; n++) {
          largest = fmaxf(largest, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
        }
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
        const float shift = largest == -INFINITY ? 0.0f : largest * factor;
        keep[m][half] = exp2_fast(top[m][half] * factor - shift);
        changed = changed || keep[m][half] != 1.0f;
        top[m][half] = largest;
        float total = 0;
#pragma unroll
        for (int n = 0; n < kN; n++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            scores[m][n][i] = exp2_fast(scores[m][n][i] * factor - shift);
            total += scores[m][n][i];
          }
        }
        sum[m][half] = sum[m][half] * keep[m][half] + total;
      }
    }
    if (__any_sync(kFullMask, changed)) {
#pragma unroll
      for (int m = 0; m < kM; m++) {
#pragma unroll
        for (int n = 0; n < kWidth / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) out[m][n][i] *= keep[m][i / 2];
        }
      }
    }

    copy_async_wait<0>();
    __syncthreads();
    if (key_tile + 1 < tiles.count) {
      load_keys<kWidth, kKeys, kThreads>(shared.keys, pages, shared.offsets[(key_tile + 1) % 2], 0, x.width);
      copy_async_commit();
      find_keys(key_tile + 2);
    }
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float (&pair)[4] = scores[m][2 * k + i / 2];
          a[m][i] = pack_pair<T>(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
        }
      }
#pragma unroll
      for (int n = 0; n < kWidth / 8; n += 2) {
        uint32_t b[4];
        load_tiles_x4<true>(b, value_rows + k * 16 * kWidth + swizzled(n * 8, query_swizzle));
#pragma unroll
        for (int m = 0; m < kM; m++) {
          mma_16x8x16<T>(out[m][n], a[m], {b[0], b[1]});
          mma_16x8x16<T>(out[m][n + 1], a[m], {b[2], b[3]});
        }
      }
    }
  }

  // Through the shared memory of the warp's own queries, so that whole pieces are written.
#pragma unroll
  for (int m = 0; m < kM; m++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float total = sum[m][half];
      total += __shfl_xor_sync(kFullMask, total, 1);
      total += __shfl_xor_sync(kFullMask, total, 2);
      const int r = warp_row + m * 16 + half * 8 + lane / 4;
      const OutputRow at = output_row(x, row, kv_head, first_row + min(rows - 1, r));
      const float largest = kind == Scores::kPlain ? top[m][half] * x.scale : top[m][half];
      const float share = finish_row(x, at, largest, total, r < rows && lane % 4 == 0);
#pragma unroll
      for (int n = 0; n < kWidth / 8; n++) {
        const uint32_t pair = pack_pair<T>(out[m][n][2 * half] * share, out[m][n][2 * half + 1] * share);
        *reinterpret_cast<uint32_t*>(shared.queries + tile_place<kWidth>(r, n) + lane % 4 * 2) = pair;
      }
    }
  }
  __syncwarp();
  constexpr int kPieces = kWidth / kHalfPiece;
  for (int i = lane; i < 16 * kM * kPieces; i += kWarp) {
    const int r = warp_row + i / kPieces, piece = i % kPieces;
    if (r >= rows || piece * kHalfPiece >= x.width) continue;
    const OutputRow at = output_row(x, row, kv_head, first_row + r);
    T* const to = static_cast<T*>(x.out) + at.token * x.out_stride + at.head * x.width + piece * kHalfPiece;
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(shared.queries + tile_place<kWidth>(r, piece));
  }
}

template <class T, int kWidth>
void launch_prefill(const AttentionView& x, Cuda& cuda) {
  const auto blocks = static_cast<unsigned>(prefill_tiles(x, PrefillShape<kWidth>::kRows) * x.kv_heads);
  const auto kernel = x.bias || x.sink_tokens > 0 ? prefill_kernel<T, kWidth, Scores::kAny>
                      : x.slopes || x.scale <= 0  ? prefill_kernel<T, kWidth, Scores::kSloped>
                                                  : prefill_kernel<T, kWidth, Scores::kPlain>;
  launch(cuda, kernel, blocks, PrefillShape<kWidth>::kThreads, sizeof(PrefillShared<T, kWidth>), x);
}

}  // namespace

void run_prefill(const AttentionView& x, Cuda& cuda) {
  for_float(x.q_type, [&](auto value) {
    using T = decltype(value);
    if constexpr (sizeof(T) == 2) {
      x.width <= 64    ? launch_prefill<T, 64>(x, cuda)
      : x.width <= 128 ? launch_prefill<T, 128>(x, cuda)
                       : launch_prefill<T, 256>(x, cuda);
    }
  });
}

}  // namespace linattn::cuda
