// What the kernels of favorFeatures share.
#pragma once
#include "cuda/device/elementwise.cuh"
#include "ops/favor-features.h"

namespace linattn::cuda::favor {

template <class T>
struct Favor {
  StridedRows<const T> x;
  const float *projected, *directions_of;  // [rows, directions], or null; [directions, size], or null
  T* out;
  float* peak;   // [heads, tokens], along which the maximum runs
  int64_t rows;  // of all heads
  int tokens, heads, size, directions, width;
  FavorKind kind;
  FavorMaximum maximum;
  float scale, eps;
  bool by_pairs, by_pieces;  // rows of x begin where two values, or eight, can be loaded at once

  explicit Favor(const FavorFeatures& op)
      : x(op.x),
        projected(op.projected.as<const float>()),
        directions_of(op.weights.as<const float>()),
        out(op.out.as<T>()),
        peak(op.peak.as<float>()),
        rows(op.x.shape[0] * op.x.shape[1]),
        tokens(static_cast<int>(op.x.shape[0])),
        heads(static_cast<int>(op.x.shape[1])),
        size(static_cast<int>(op.x.shape[2])),
        directions(op.directions),
        width(static_cast<int>(op.out.shape[2])),
        kind(op.kind),
        maximum(op.maximum),
        scale(op.scale),
        eps(op.eps),
        by_pairs(aligned(op.x, 2)),
        by_pieces(aligned(op.x, 8)) {}

  // A row, of 32 or 64 bits, is token * heads + head.
  template <class Row>
  __device__ __forceinline__ const T* row(Row row) const {
    const Row token = row / static_cast<Row>(heads);
    return x.at(token, (row - token * static_cast<Row>(heads)) * size);
  }
  template <class Row>
  __device__ __forceinline__ float& peak_of(Row row) const {
    const Row token = row / static_cast<Row>(heads);
    return peak[static_cast<int64_t>(row - token * static_cast<Row>(heads)) * tokens + token];
  }
  // Whether the maximum is that of other rows too.
  __device__ __forceinline__ bool has_peaks() const {
    return maximum == FavorMaximum::kRunning || maximum == FavorMaximum::kSequence;
  }
  // What a maximum subtracts on a row's own account, of its largest exponent (or size of one) and |y|^2 / 2.
  __device__ __forceinline__ float own_peak(float top, float norm) const { return eps > 0 ? top : top - norm; }
  __device__ __forceinline__ float exponent_size(float u) const {
    return kind == FavorKind::kHyperbolic ? fabsf(u) : u;
  }
};

// With the product inside, of bfloat16: the peaks, or the features. On Hopper, whether it is for these sizes.
bool find_peaks_on_hopper(const Favor<bfloat16>& favor, Cuda& cuda);
bool make_features_on_hopper(const Favor<bfloat16>& favor, Cuda& cuda);
void find_peaks_of_product(const Favor<bfloat16>& favor, Cuda& cuda);
void make_features_of_product(const Favor<bfloat16>& favor, Cuda& cuda);

}  // namespace linattn::cuda::favor
