// Matrix products with tensor cores, for machines without cuBLASLt: a block computes 128 x 128 sums from tiles that
// come through a ring of shared memory.
#include "cuda/device/launch.cuh"
#include "cuda/device/mma.cuh"
#include "cuda/ops/matmul.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 128;  // rows, and outputs
constexpr int kTileDepth = 32;
constexpr int kStages = 4;
constexpr int kChunk = 8;  // values of 16 bytes
constexpr int kRowChunks = kTileDepth / kChunk;
constexpr int kTileValues = kTile * kTileDepth;
constexpr size_t kSharedBytes = size_t{kStages} * 2 * kTileValues * 2;
constexpr int kWarpRows = 64, kWarpOutputs = 32;  // of a warp

// Where 16 bytes of a row lie in a tile: 8 rows of one column of chunks are in 8 different groups of banks.
__device__ __forceinline__ int place_of(int row, int chunk) {
  return row * kTileDepth + (chunk ^ (row / 2 % kRowChunks)) * kChunk;
}

// Rows [first, first + 128) of a matrix and inputs [k, k + 32), zeros beyond.
template <class P>
__device__ __forceinline__ void load_tile(P* tile, const P* matrix, int64_t stride, int64_t first, int64_t rows,
                                          int64_t k, int64_t depth) {
#pragma unroll
  for (int i = 0; i < kTile * kRowChunks / kThreads; i++) {
    const int at = static_cast<int>(threadIdx.x) + i * kThreads, row = at / kRowChunks, chunk = at % kRowChunks;
    const int64_t from = k + chunk * kChunk;
    const bool present = first + row < rows && from < depth;
    copy_async_16(tile + place_of(row, chunk), present ? matrix + (first + row) * stride + from : matrix, present);
  }
}

template <class P, class D>
__global__ void __launch_bounds__(kThreads) multiply(const __grid_constant__ MatrixProduct p) {
  P* const shared = dynamic_shared<P>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int warp_row = warp / 4 * kWarpRows, warp_output = warp % 4 * kWarpOutputs;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const P* x = static_cast<const P*>(p.x);
  const P* weights = static_cast<const P*>(p.weights);
  const int steps = static_cast<int>(ceil_div(p.depth, kTileDepth));

  const auto load_stage = [&](int step) {
    if (step < steps) {
      P* tile = shared + step % kStages * 2 * kTileValues;
      const int64_t k = static_cast<int64_t>(step) * kTileDepth;
      load_tile(tile, x, p.x_stride, row0, p.rows, k, p.depth);
      load_tile(tile + kTileValues, weights, p.weights_stride, n0, p.outputs, k, p.depth);
    }
    copy_async_commit();
  };
  for (int step = 0; step < kStages - 1; step++) load_stage(step);

  float sums[kWarpRows / 16][kWarpOutputs / 8][4] = {};
  for (int step = 0; step < steps; step++) {
    copy_async_wait<kStages - 2>();
    __syncthreads();
    load_stage(step + kStages - 1);
    const P* rows = shared + step % kStages * 2 * kTileValues;
    const P* outputs = rows + kTileValues;
#pragma unroll
    for (int k = 0; k < kRowChunks; k += 2) {
      uint32_t a[kWarpRows / 16][4], b[kWarpOutputs / 16][4];
#pragma unroll
      for (int i = 0; i < kWarpRows / 16; i++) {
        load_tiles_x4(a[i], rows + place_of(warp_row + i * 16 + lane % 16, k + lane / 16));
      }
#pragma unroll
      for (int i = 0; i < kWarpOutputs / 16; i++) {
        load_tiles_x4(b[i], outputs + place_of(warp_output + i * 16 + lane / 16 * 8 + lane % 8, k + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < kWarpRows / 16; i++) {
#pragma unroll
        for (int j = 0; j < kWarpOutputs / 8; j++) {
          const uint32_t pair[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
          mma_16x8x16<P>(sums[i][j], a[i], pair);
        }
      }
    }
  }

  D* const to = static_cast<D*>(p.sums);
#pragma unroll
  for (int i = 0; i < kWarpRows / 16; i++) {
#pragma unroll
    for (int j = 0; j < kWarpOutputs / 8; j++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int64_t row = row0 + warp_row + i * 16 + lane / 4 + e / 2 * 8;
        const int64_t n = n0 + warp_output + j * 8 + lane % 4 * 2 + e % 2;
        if (row >= p.rows || n >= p.outputs) continue;
        D* const place = to + row * p.sums_stride + n;
        *place = from_float<D>(p.accumulate ? as_float(*place) + sums[i][j][e] : sums[i][j][e]);
      }
    }
  }
}

template <class P, class D>
void launch_multiply(const MatrixProduct& p, Cuda& cuda) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.outputs, kTile)), static_cast<unsigned>(ceil_div(p.rows, kTile)));
  launch(cuda, multiply<P, D>, grid, kThreads, kSharedBytes, p);
}

template <class P>
void multiply_half(const MatrixProduct& p, Cuda& cuda) {
  if (p.sums_type == DType::kFloat32) return launch_multiply<P, float>(p, cuda);
  launch_multiply<P, P>(p, cuda);
}

}  // namespace

void multiply_tiles(const MatrixProduct& p, Cuda& cuda) {
  if (p.type == DType::kFloat32) return multiply_tiles_float(p, cuda);
  if (p.type == DType::kBFloat16) return multiply_half<bfloat16>(p, cuda);
  multiply_half<float16>(p, cuda);
}

}  // namespace linattn::cuda
