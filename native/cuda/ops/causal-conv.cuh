// The causal convolution as a kernel argument.
#pragma once
#include "cuda/device/elementwise.cuh"
#include "cuda/device/sequences.cuh"
#include "ops/causal-conv.h"

namespace linattn::cuda {

constexpr int kConvWidth = 4;  // channels of a thread, where they can be loaded at once

template <class T>
struct Conv {
  StridedRows<const T> x;
  StridedRows<T> out;
  const float *weight, *bias;  // [filters, channels, taps]; [filters, channels] or null
  float* state;                // [slots, channels, taps - 1] or null
  int64_t slot_stride;
  int slots, channels, taps, filters;
  bool silu;
  int run;  // tokens of a block; 0: all of a sequence
  int channel_blocks;
  int norm_channels, norm_width;  // a vector in lanes next to one another, all warps whole; or 0
  float norm_eps;
  SequencesView sequences;
  Fault* fault;

  // The windows of sequence n's channels from `channel` on, or null.
  __device__ __forceinline__ float* window(FaultName name, const int32_t* list, int n, int64_t channel) const {
    if (!state || taps == 1) return nullptr;
    const int slot = checked_slot(fault, name, list, n, slots);
    return slot < 0 ? nullptr : state + slot * slot_stride + channel * (taps - 1);
  }
};

// What makes a vector with this sum of squares one of length 1, as exact as what T keeps.
template <class T>
__device__ __forceinline__ float unit_scale(float squares, float eps) {
  if constexpr (sizeof(T) == 2) return rsqrtf(squares + eps);
  return 1.0f / sqrtf(squares + eps);
}

template <class T>
Conv<T> conv_of(const CausalConv& op, const Cuda& cuda) {
  Conv<T> conv{};
  conv.x = StridedRows<const T>(op.x);
  conv.out = StridedRows<T>(op.out);
  conv.weight = op.weight.as<const float>();
  conv.bias = op.bias.as<const float>();
  conv.state = op.state.as<float>();
  conv.slot_stride = op.state.stride0;
  conv.slots = static_cast<int>(op.state ? op.state.shape[0] : 0);
  conv.channels = static_cast<int>(op.x.shape[1]);
  conv.taps = static_cast<int>(op.weight.shape[1]);
  conv.filters = static_cast<int>(op.weight.shape[0] / conv.channels);
  conv.silu = op.silu;
  conv.norm_channels = static_cast<int>(op.norm_channels);
  conv.norm_width = static_cast<int>(op.norm_width);
  conv.norm_eps = op.norm_eps;
  conv.sequences = view_of(op.sequences);
  conv.fault = cuda.fault();
  return conv;
}

inline bool conv_aligned(const CausalConv& op) {
  return op.x.shape[1] % kConvWidth == 0 && aligned(op.x, kConvWidth) && aligned(op.out, kConvWidth) &&
         reinterpret_cast<uintptr_t>(op.weight.data) % 16 == 0 && (!op.bias || aligned(op.bias, kConvWidth)) &&
         (!op.state || aligned(op.state, kConvWidth));
}

}  // namespace linattn::cuda
