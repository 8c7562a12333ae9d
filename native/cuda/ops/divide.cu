#include "cuda/device/elementwise.cuh"
#include "ops/divide.h"

namespace linattn::cuda {
namespace {

template <class T>
struct DivideBody {
  StridedRows<const T> x;
  StridedRows<const float> divisor, floor;
  StridedRows<T> out;
  float eps;
  int width;  // of a head

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float values[N];
    load(x.at(row, column), values);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const int64_t head = (column + i) / width;
      const float size = fabsf(*divisor.at(row, head)), least = *floor.at(row, head);
      values[i] /= (size < least ? least : size) + eps;
    }
    store(out.at(row, column), values);
  }
};

}  // namespace

void run(const Divide& op, Cuda& cuda) {
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const DivideBody<T> body{StridedRows<const T>(op.x),
                             StridedRows<const float>(op.divisor),
                             StridedRows<const float>(op.floor),
                             StridedRows<T>(op.out),
                             op.eps,
                             static_cast<int>(op.x.shape[2])};
    elementwise<16 / sizeof(T)>(cuda, {op.out, op.x}, body, true);
  });
}

}  // namespace linattn::cuda
