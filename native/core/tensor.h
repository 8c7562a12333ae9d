// A tensor as an op sees it: bound memory, dtype, shape, and a free stride of the first dimension (in elements).
// Every other dimension is contiguous. A default-made Tensor is "absent".
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace linattn {

constexpr int kMaxRank = 5;

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int8_t rank = -1;
  int64_t shape[kMaxRank] = {0, 0, 0, 0, 0};
  int64_t stride0 = 0;

  explicit operator bool() const { return rank >= 0; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t dim(int i) const { return i < rank ? shape[i] : 1; }
  // Elements of one index of the first dimension.
  int64_t inner() const {
    int64_t n = 1;
    for (int i = 1; i < rank; i++) n *= shape[i];
    return n;
  }
  int64_t size() const { return rank > 0 ? shape[0] * inner() : (rank == 0 ? 1 : 0); }
  bool contiguous() const { return rank < 1 || shape[0] <= 1 || stride0 == inner(); }
  template <class T>
  T* row(int64_t i) const {
    return as<T>() + i * stride0;
  }
};

}  // namespace linattn
