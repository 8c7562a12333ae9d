// (I + L)^-1 of a strictly lower triangular 64 x 64 L in float32: by substitution, which correlated keys cannot upset
// as they do a power series. The 16 x 16 blocks on the diagonal first, then a warp for each row of blocks, with
// products of bfloat16 pairs whose rests are kept (16 bits of fraction).
#pragma once
#include "cuda/ops/linear-attention-chunks-tiles.cuh"

namespace linattn::cuda::chunks {

constexpr float kLargeRow = 16.0f;  // sum of squares

struct LowerShared {
  static constexpr int kPitch = 20;
  float diagonal[kBlocks][kBlock][kPitch];  // of L', so [column][row]
  float inverse[kBlocks][kBlock][kPitch];
  float4 below[kBlocks * (kBlocks - 1) / 2][2][kWarp];  // blocks of L' as Sums
};

// Block (i, j) of L, given transposed: rows are the tokens of j, columns those of i.
__device__ __forceinline__ void put_lower(LowerShared& shared, int i, int j, const Sums& transposed, int lane) {
  if (i != j) {
    const int at = i * (i - 1) / 2 + j;
    for (int half = 0; half < 2; half++) {
      const float* x = transposed[half];
      shared.below[at][half][lane] = make_float4(x[0], x[1], x[2], x[3]);
    }
    return;
  }
  const int g = lane / 4, p = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int e = 0; e < 4; e++) shared.diagonal[i][g + e / 2 * 8][half * 8 + 2 * p + e % 2] = transposed[half][e];
  }
}

// sums += left right', each the sum of two fragments; the product of the rests is left out.
__device__ __forceinline__ void multiply_exact(Sums& sums, const Fragment (&left)[2], const Fragment (&right)[2]) {
  multiply(sums, left[0], right[1]);
  multiply(sums, left[1], right[0]);
  multiply(sums, left[0], right[0]);
}

__device__ __forceinline__ void pack_exact(Fragment (&to)[2], const Sums& sums) {
  pack_block(to[0], sums);
  pack_rest(to[1], sums, to[0]);
}

__device__ __forceinline__ void invert_diagonal(LowerShared& shared, int block, int lane) {
  const int column = lane % kBlock;
  float x[kBlock];
#pragma unroll
  for (int i = 0; i < kBlock; i++) x[i] = i == column ? 1.0f : 0.0f;
#pragma unroll
  for (int j = 0; j < kBlock - 1; j++) {
    const float* row = shared.diagonal[block][j];
#pragma unroll
    for (int quad = (j + 1) / 4; quad < kBlock / 4; quad++) {
      const float4 l = *reinterpret_cast<const float4*>(row + quad * 4);
      x[quad * 4] -= quad * 4 > j ? l.x * x[j] : 0.0f;
      x[quad * 4 + 1] -= quad * 4 + 1 > j ? l.y * x[j] : 0.0f;
      x[quad * 4 + 2] -= quad * 4 + 2 > j ? l.z * x[j] : 0.0f;
      x[quad * 4 + 3] -= quad * 4 + 3 > j ? l.w * x[j] : 0.0f;
    }
  }
  if (lane < kBlock) {
#pragma unroll
    for (int i = 0; i < kBlock; i++) shared.inverse[block][i][column] = x[i];
  }
}

// Block (row, row - d) of the inverse as made[d], for the warp of this row. All threads of a block of 128; L must be
// put and synced.
__device__ __forceinline__ void invert_lower(LowerShared& shared, Fragment (&made)[kBlocks][2]) {
  const int lane = threadIdx.x % kWarp, row = threadIdx.x / kWarp, g = lane / 4, p = lane % 4;
  invert_diagonal(shared, row, lane);
  __syncthreads();
  Sums own;
#pragma unroll
  for (int half = 0; half < 2; half++) {
#pragma unroll
    for (int e = 0; e < 4; e++) own[half][e] = shared.inverse[row][g + e / 2 * 8][half * 8 + 2 * p + e % 2];
  }
  pack_exact(made[0], own);
#pragma unroll
  for (int d = 1; d < kBlocks; d++) {
    if (d > row) break;
    const int column = row - d;
    Sums sums = {};
#pragma unroll
    for (int m = 0; m < d; m++) {
      const int at = (row - m) * (row - m - 1) / 2 + column;
      Sums lower;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float4 four = shared.below[at][half][lane];
        lower[half][0] = four.x;
        lower[half][1] = four.y;
        lower[half][2] = four.z;
        lower[half][3] = four.w;
      }
      Fragment right[2];
      pack_exact(right, lower);
      multiply_exact(sums, made[m], right);
    }
    Sums diagonal, result = {};
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        sums[half][e] = -sums[half][e];
        diagonal[half][e] = shared.inverse[column][half * 8 + 2 * p + e % 2][g + e / 2 * 8];
      }
    }
    Fragment left[2], right[2];
    pack_exact(left, sums);
    pack_exact(right, diagonal);
    multiply_exact(result, left, right);
    pack_exact(made[d], result);
  }
}

// The inverse with its columns times `beta` (null: 1), into a record; and its rest, where rows are so large that its
// rounding would be what the result is off by (keys near one direction with beta near 2).
__device__ __forceinline__ void store_inverse(char* record, const RecordLayout& layout,
                                              const Fragment (&made)[kBlocks][2], const float* beta) {
  const int lane = threadIdx.x % kWarp, row = threadIdx.x / kWarp, p = lane % 4;
  const auto scaled = [&](Sums& to, int d) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int column = (row - d) * kBlock + half * 8 + 2 * p;
      const float first = beta ? beta[column] : 1.0f, second = beta ? beta[column + 1] : 1.0f;
#pragma unroll
      for (int low = 0; low < 2; low++) {
        const uint32_t most = made[d][0][half * 2 + low], rest = made[d][1][half * 2 + low];
        to[half][low * 2] = (low_of(most) + low_of(rest)) * first;
        to[half][low * 2 + 1] = (high_of(most) + high_of(rest)) * second;
      }
    }
  };
  float squares[2] = {};  // of rows g and g + 8
#pragma unroll
  for (int d = 0; d < kBlocks; d++) {
    if (d > row) break;
    Sums block;
    scaled(block, d);
#pragma unroll
    for (int e = 0; e < 8; e++) squares[e / 2 % 2] += block[e / 4][e % 4] * block[e / 4][e % 4];
    Fragment packed;
    pack_block(packed, block);
    store_block(record + layout.matrix(kSolve) + lower_index(row, row - d) * 512, lane, packed);
  }
#pragma unroll
  for (float& sum : squares) {
    sum += __shfl_xor_sync(kFullMask, sum, 1);
    sum += __shfl_xor_sync(kFullMask, sum, 2);
  }
  const bool large = __any_sync(kFullMask, squares[0] > kLargeRow || squares[1] > kLargeRow);
  if (lane == 0) reinterpret_cast<float*>(record + layout.large())[row] = large ? 1.0f : 0.0f;
  if (!large) return;
#pragma unroll
  for (int d = 0; d < kBlocks; d++) {
    if (d > row) break;
    Sums block;
    Fragment packed, rest;
    scaled(block, d);
    pack_block(packed, block);
    pack_rest(rest, block, packed);
    store_block(record + layout.rest() + lower_index(row, row - d) * 512, lane, rest);
  }
}

}  // namespace linattn::cuda::chunks
