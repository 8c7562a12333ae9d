#include "cuda/device/elementwise.cuh"
#include "ops/weighted-sum.h"

namespace linattn::cuda {
namespace {

template <class T>
struct WeightedSumBody {
  StridedRows<const T> x, base;  // the last may be absent: 0
  StridedRows<const float> weights;
  StridedRows<T> out;
  int count;  // rows of x that make one of out

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float sums[N] = {};
    if (base.data) load(base.at(row, column), sums);
    for (int j = 0; j < count; j++) {
      float values[N];
      load(x.at(row * count + j, column), values);
      const float weight = *weights.at(row, j);
#pragma unroll
      for (int i = 0; i < N; i++) sums[i] = fmaf(weight, values[i], sums[i]);
    }
    store(out.at(row, column), sums);
  }
};

}  // namespace

void run(const WeightedSum& op, Cuda& cuda) {
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const WeightedSumBody<T> body{StridedRows<const T>(op.x), StridedRows<const T>(op.base),
                                  StridedRows<const float>(op.weights), StridedRows<T>(op.out),
                                  static_cast<int>(op.weights.shape[1])};
    elementwise<16 / sizeof(T)>(cuda, {op.out, op.x, op.base ? op.base : op.out}, body, true);
  });
}

}  // namespace linattn::cuda
