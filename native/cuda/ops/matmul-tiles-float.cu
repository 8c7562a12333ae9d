// Matrix products in float32, for machines without cuBLASLt: a block computes 64 x 64 sums, a thread 4 x 4 of them,
// each one chain of multiply-adds over the inputs in rising order.
#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/ops/matmul.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;
constexpr int kTileDepth = 16;
constexpr int kOwn = 4;  // rows, and outputs, of a thread; also the values of a load

// Inputs [k, k + 16) of 64 rows, transposed.
__device__ __forceinline__ void load_tile(float (*tile)[kTile + kOwn], const float* matrix, int64_t stride,
                                          int64_t first, int64_t rows, int64_t k, int64_t depth) {
  const int row = threadIdx.x / kOwn, column = threadIdx.x % kOwn * kOwn;
  float values[kOwn] = {};
  if (first + row < rows && k + column < depth) load(matrix + (first + row) * stride + k + column, values);
#pragma unroll
  for (int i = 0; i < kOwn; i++) tile[column + i][row] = values[i];
}

__global__ void __launch_bounds__(kThreads) multiply(const __grid_constant__ MatrixProduct p) {
  alignas(16) __shared__ float rows[kTileDepth][kTile + kOwn];
  alignas(16) __shared__ float outputs[kTileDepth][kTile + kOwn];
  const int own_row = threadIdx.x / (kTile / kOwn) * kOwn, own_output = threadIdx.x % (kTile / kOwn) * kOwn;
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kTile, n0 = static_cast<int64_t>(blockIdx.x) * kTile;
  float sums[kOwn][kOwn] = {};
  for (int64_t k = 0; k < p.depth; k += kTileDepth) {
    load_tile(rows, static_cast<const float*>(p.x), p.x_stride, row0, p.rows, k, p.depth);
    load_tile(outputs, static_cast<const float*>(p.weights), p.weights_stride, n0, p.outputs, k, p.depth);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTileDepth; i++) {
      float left[kOwn], right[kOwn];
      load(&rows[i][own_row], left);
      load(&outputs[i][own_output], right);
#pragma unroll
      for (int r = 0; r < kOwn; r++) {
#pragma unroll
        for (int n = 0; n < kOwn; n++) sums[r][n] = fmaf(left[r], right[n], sums[r][n]);
      }
    }
    __syncthreads();
  }
  for (int r = 0; r < kOwn; r++) {
    for (int n = 0; n < kOwn; n++) {
      if (row0 + own_row + r >= p.rows || n0 + own_output + n >= p.outputs) continue;
      static_cast<float*>(p.sums)[(row0 + own_row + r) * p.sums_stride + n0 + own_output + n] = sums[r][n];
    }
  }
}

}  // namespace

void multiply_tiles_float(const MatrixProduct& p, Cuda& cuda) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.outputs, kTile)), static_cast<unsigned>(ceil_div(p.rows, kTile)));
  launch(cuda, multiply, grid, kThreads, 0, p);
}

}  // namespace linattn::cuda
