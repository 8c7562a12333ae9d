#include "cuda/device/activate.cuh"
#include "cuda/device/elementwise.cuh"
#include "ops/delta-gates.h"

namespace linattn::cuda {
namespace {

template <class T>
struct DeltaGatesBody {
  StridedRows<const T> a, b;
  const float *a_log, *dt_bias;
  StridedRows<float> g, beta;
  float beta_scale;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t head) const {
    float rates[N], strengths[N];
    load(a.at(row, head), rates);
    load(b.at(row, head), strengths);
#pragma unroll
    for (int i = 0; i < N; i++) {
      rates[i] = -expf(a_log[head + i]) * softplus(rates[i] + dt_bias[head + i]);
      strengths[i] = beta_scale * sigmoid(strengths[i]);
    }
    store(g.at(row, head), rates);
    store(beta.at(row, head), strengths);
  }
};

}  // namespace

void run(const DeltaGates& op, Cuda& cuda) {
  for_float(op.a.dtype, [&](auto t) {
    using T = decltype(t);
    const DeltaGatesBody<T> body{StridedRows<const T>(op.a),
                                 StridedRows<const T>(op.b),
                                 op.a_log.as<const float>(),
                                 op.dt_bias.as<const float>(),
                                 StridedRows<float>(op.g),
                                 StridedRows<float>(op.beta),
                                 op.beta_scale};
    elementwise<4>(cuda, {op.a, op.b, op.g, op.beta}, body, true);
  });
}

}  // namespace linattn::cuda
