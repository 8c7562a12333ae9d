// The gates of a delta rule, as device code.
#pragma once
#include "cuda/device/activate.cuh"
#include "cuda/device/elementwise.cuh"
#include "ops/delta-gates.h"

namespace linattn::cuda {

template <class T>
struct DeltaGatesBody {
  StridedRows<const T> a, b;  // b may be absent: beta is the step size
  const float *a_log, *dt_bias;
  StridedRows<float> g, beta;
  float beta_scale, step_min, step_max;

  // g and beta of N heads.
  template <int N>
  __device__ __forceinline__ void of(int64_t row, int64_t head, float (&rates)[N], float (&strengths)[N]) const {
    load(a.at(row, head), rates);
    if (b.data) load(b.at(row, head), strengths);
    make(head, rates, strengths);
  }

  // The same of their inputs.
  template <int N>
  __device__ __forceinline__ void make(int64_t head, float (&rates)[N], float (&strengths)[N]) const {
#pragma unroll
    for (int i = 0; i < N; i++) {
      float step = softplus(rates[i] + dt_bias[head + i]);
      if (!b.data) step = step < step_min ? step_min : step > step_max ? step_max : step;  // keeps NaN
      strengths[i] = b.data ? beta_scale * sigmoid(strengths[i]) : step;
      rates[i] = -expf(a_log[head + i]) * step;
    }
  }

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t head) const {
    float rates[N], strengths[N] = {};
    of(row, head, rates, strengths);
    store(g.at(row, head), rates);
    store(beta.at(row, head), strengths);
  }
};

template <class T>
DeltaGatesBody<T> delta_gates_body(const DeltaGates& op) {
  return {StridedRows<const T>(op.a),
          StridedRows<const T>(op.b),
          op.a_log.as<const float>(),
          op.dt_bias.as<const float>(),
          StridedRows<float>(op.g),
          StridedRows<float>(op.beta),
          op.beta_scale,
          op.step_min,
          op.step_max};
}

}  // namespace linattn::cuda
