// Kernels that make each value of a tensor from what lies at its place in other tensors: one piece of up to 16 bytes a
// thread where all of them are aligned, one value a thread where not.
#pragma once
#include <algorithm>
#include <initializer_list>

#include "core/tensor.h"
#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"

namespace linattn::cuda {

// A tensor as a kernel argument: rows of neighbouring values.
template <class T>
struct StridedRows {
  T* data = nullptr;
  int64_t stride = 0;

  StridedRows() = default;
  explicit StridedRows(const Tensor& tensor) : data(tensor.as<T>()), stride(tensor.stride0) {}
  __device__ __forceinline__ T* at(int64_t row, int64_t column) const { return data + row * stride + column; }
};

// Whether pieces of `width` values at multiples of `width` in every row can be loaded at once.
inline bool aligned(const Tensor& tensor, int width) {
  const int64_t bytes = static_cast<int64_t>(dtype_bytes(tensor.dtype)), unit = std::min<int64_t>(16, width * bytes);
  const bool rows_aligned = tensor.rank <= 1 || tensor.shape[0] <= 1 || tensor.stride0 * bytes % unit == 0;
  return rows_aligned && reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(unit) == 0;
}

constexpr int kElementwiseThreads = 256;

template <int kWidth, class Body>
__global__ void __launch_bounds__(kElementwiseThreads) elementwise_kernel(int64_t rows, int64_t width, Body body) {
  const int64_t pieces = ceil_div(width, kWidth);
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kElementwiseThreads + threadIdx.x;
  if (piece >= rows * pieces) return;
  const bool small = rows * pieces <= UINT32_MAX;  // where a division takes few instructions
  const int64_t row = rows == 1 ? 0
                      : small   ? static_cast<uint32_t>(piece) / static_cast<uint32_t>(pieces)
                                : piece / pieces;
  const int64_t column = (piece - row * pieces) * kWidth;
  wait_for_inputs();
  if (column + kWidth <= width) {
    body.template apply<kWidth>(row, column);
  } else {
    for (int64_t c = column; c < width; c++) body.template apply<1>(row, c);
  }
}

// body.apply<n>(row, column) makes n values, with n of kWidth or 1, for tensors of one shape; n of kWidth where kWidth
// values of each operand can be loaded at once. Contiguous tensors are one long row, unless the body needs its columns.
template <int kWidth, class Body>
void elementwise(Cuda& cuda, std::initializer_list<Tensor> operands, const Body& body, bool needs_columns = false) {
  const Tensor& first = *operands.begin();
  const int64_t size = first.size();
  if (size == 0) return;
  const bool flat =
      !needs_columns && std::all_of(operands.begin(), operands.end(), [](const Tensor& t) { return t.contiguous(); });
  const int64_t rows = flat ? 1 : first.shape[0], width = size / rows;
  const bool wide = std::all_of(operands.begin(), operands.end(), [&](Tensor t) {
    if (flat) t.rank = 0;
    return aligned(t, kWidth);
  });
  const int64_t blocks = ceil_div(rows * ceil_div(width, wide ? kWidth : 1), kElementwiseThreads);
  const auto kernel = wide ? elementwise_kernel<kWidth, Body> : elementwise_kernel<1, Body>;
  launch_early(cuda, kernel, static_cast<unsigned>(blocks), kElementwiseThreads, 0, rows, width, body);
}

}  // namespace linattn::cuda
