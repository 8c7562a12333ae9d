// Activation functions of float32 values to a few ulp, also where the result is tiny.
#pragma once
#include "cuda/device/platform.cuh"
#include "ops/activation.h"

namespace linattn::cuda {

__device__ __forceinline__ float sigmoid(float x) {
  const float t = expf(-fabsf(x));
  return __fdividef(x < 0 ? t : 1.0f, 1.0f + t);
}

__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }

// As exact as what T keeps of them: with 16 bits the exponential may be off by 2^-17 of it, which they do not show.
template <class T>
__device__ __forceinline__ float sigmoid_as(float x) {
  if constexpr (sizeof(T) == 2) return __fdividef(1.0f, 1.0f + __expf(-x));
  return sigmoid(x);
}

template <class T>
__device__ __forceinline__ float silu_as(float x) {
  return x * sigmoid_as<T>(x);
}

__device__ __forceinline__ float softplus(float x) { return (x < 0 ? 0.0f : x) + log1pf(expf(-fabsf(x))); }

// x * Phi(x) with the normal distribution Phi(x) = erfc(-x / sqrt 2) / 2, also in its far left tail:
// erfc(z) = e^(-z^2) p(t) / (1 + 2z) for z >= 0, t = (z - 2) / (z + 2), p fitted for the smallest relative error.
__device__ __forceinline__ float gelu(float x) {
  const float a = fminf(fabsf(x), 20.0f);
  const float z = a * 0.70710678f;
  const float t = __fdividef(z - 2.0f, z + 2.0f);
  float p = -0.00040173993329517543f;
  p = fmaf(p, t, -0.0012319103116169572f);
  p = fmaf(p, t, 0.001313744462095201f);
  p = fmaf(p, t, 0.008633305318653584f);
  p = fmaf(p, t, -0.008059605956077576f);
  p = fmaf(p, t, -0.05420472100377083f);
  p = fmaf(p, t, 0.16405527293682098f);
  p = fmaf(p, t, -0.1660313904285431f);
  p = fmaf(p, t, -0.0927639752626419f);
  p = fmaf(p, t, 1.2769783735275269f);
  const float square = __fmul_rn(a, a);
  const float lost = fmaf(a, a, -square);  // what rounding took from the square
  const float tail = __fdividef(expf(square * -0.5f) * fmaf(-0.5f, lost, 1.0f) * p, fmaf(2.0f, z, 1.0f));
  return x * (x < 0 ? 0.5f * tail : fmaf(-0.5f, tail, 1.0f));
}

// (1 + tanh y) / 2 = sigmoid(2y) with y = sqrt(2 / pi) (x + 0.044715 x^3).
__device__ __forceinline__ float gelu_tanh(float x) {
  return x * sigmoid(fmaf(x * x * x, 0.044715f, x) * 1.5957691216057308f);
}

// Of values of type T as float32.
template <class T, int N>
__device__ __forceinline__ void activate(ActivationKind kind, float (&x)[N]) {
  const auto each = [&](auto function) {
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = function(x[i]);
  };
  switch (kind) {
    case ActivationKind::kSilu:
      return each([](float v) { return silu_as<T>(v); });
    case ActivationKind::kSigmoid:
      return each([](float v) { return sigmoid_as<T>(v); });
    case ActivationKind::kTanh:
      return each([](float v) { return tanhf(v); });
    case ActivationKind::kRelu:
      return each([](float v) { return v < 0 ? 0.0f : v; });
    case ActivationKind::kRelu2:
      return each([](float v) { return v < 0 ? 0.0f : v * v; });
    case ActivationKind::kSoftplus:
      return each([](float v) { return softplus(v); });
    case ActivationKind::kGelu:
      return each([](float v) { return gelu(v); });
    case ActivationKind::kGeluTanh:
      return each([](float v) { return gelu_tanh(v); });
    case ActivationKind::kLogSigmoid:
      return each([](float v) { return -softplus(-v); });
    case ActivationKind::kIdentity:
      return;
  }
}

}  // namespace linattn::cuda
