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
  float* peak;
  int64_t rows;  // of all heads
  int heads, size, directions, width;
  FavorKind kind;
  FavorMaximum maximum;
  float scale, eps;
  bool by_pairs;  // rows of x begin where two values can be loaded at once

  explicit Favor(const FavorFeatures& op)
      : x(op.x),
        projected(op.projected.as<const float>()),
        directions_of(op.weights.as<const float>()),
        out(op.out.as<T>()),
        peak(op.peak.as<float>()),
        rows(op.x.shape[0] * op.x.shape[1]),
        heads(static_cast<int>(op.x.shape[1])),
        size(static_cast<int>(op.x.shape[2])),
        directions(op.directions),
        width(static_cast<int>(op.out.shape[2])),
        kind(op.kind),
        maximum(op.maximum),
        scale(op.scale),
        eps(op.eps),
        by_pairs(aligned(op.x, 2)) {}

  __device__ __forceinline__ const T* row(int64_t row) const { return x.at(row / heads, row % heads * size); }
  // What a maximum subtracts on a row's own account, of its largest exponent (or size of one) and |y|^2 / 2.
  __device__ __forceinline__ float own_peak(float top, float norm) const { return eps > 0 ? top : top - norm; }
  __device__ __forceinline__ float exponent_size(float u) const {
    return kind == FavorKind::kHyperbolic ? fabsf(u) : u;
  }
};

// With the product inside, of bfloat16: the peaks, or the features.
void find_peaks_of_product(const Favor<bfloat16>& favor, Cuda& cuda);
void make_features_of_product(const Favor<bfloat16>& favor, Cuda& cuda);

}  // namespace linattn::cuda::favor
