#include "cuda/device/activate.cuh"
#include "cuda/device/elementwise.cuh"
#include "ops/gated-activation.h"

namespace linattn::cuda {
namespace {

template <class T>
struct GatedActivationBody {
  StridedRows<const T> x, gate, base;  // the last may be absent: 0
  StridedRows<T> out;
  ActivationKind kind;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float values[N], gates[N], from[N] = {};
    load(x.at(row, column), values);
    load(gate.at(row, column), gates);
    if (base.data) load(base.at(row, column), from);
    activate<T>(kind, gates);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = fmaf(gates[i], values[i] - from[i], from[i]);
    store(out.at(row, column), values);
  }
};

}  // namespace

void run(const GatedActivation& op, Cuda& cuda) {
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    Tensor x = op.x, gate = op.gate;
    if (!gate) {  // a row of x holds both
      x.shape[1] = op.out.shape[1];
      gate = x;
      x.data = op.x.as<T>() + op.out.shape[1];
    }
    const GatedActivationBody<T> body{StridedRows<const T>(x), StridedRows<const T>(gate),
                                      StridedRows<const T>(op.base), StridedRows<T>(op.out), op.activation};
    elementwise<16 / sizeof(T)>(cuda, {x, gate, op.base ? op.base : gate, op.out}, body);
  });
}

}  // namespace linattn::cuda
