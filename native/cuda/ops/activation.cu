#include "cuda/device/activate.cuh"
#include "cuda/device/elementwise.cuh"
#include "ops/activation.h"

namespace linattn::cuda {
namespace {

template <class T>
struct ActivationBody {
  StridedRows<const T> x;
  StridedRows<T> out;
  ActivationKind kind;
  float scale;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float values[N];
    load(x.at(row, column), values);
    activate<T>(kind, values);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] *= scale;
    store(out.at(row, column), values);
  }
};

}  // namespace

void run(const Activation& op, Cuda& cuda) {
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const ActivationBody<T> body{StridedRows<const T>(op.x), StridedRows<T>(op.out), op.activation, op.scale};
    elementwise<16 / sizeof(T)>(cuda, {op.x, op.out}, body);
  });
}

}  // namespace linattn::cuda
