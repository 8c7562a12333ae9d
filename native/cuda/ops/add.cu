#include "cuda/device/elementwise.cuh"
#include "ops/add.h"

namespace linattn::cuda {
namespace {

template <class T>
struct AddBody {
  StridedRows<const T> a, b;
  StridedRows<T> out;
  float scale;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float sums[N], values[N];
    load(a.at(row, column), sums);
    load(b.at(row, column), values);
#pragma unroll
    for (int i = 0; i < N; i++) sums[i] = fmaf(values[i], scale, sums[i]);
    store(out.at(row, column), sums);
  }
};

}  // namespace

void run(const Add& op, Cuda& cuda) {
  for_float(op.a.dtype, [&](auto t) {
    using T = decltype(t);
    const AddBody<T> body{StridedRows<const T>(op.a), StridedRows<const T>(op.b), StridedRows<T>(op.out), op.scale};
    elementwise<16 / sizeof(T)>(cuda, {op.a, op.b, op.out}, body);
  });
}

}  // namespace linattn::cuda
