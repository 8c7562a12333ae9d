// embedding as a block does a row: rows of a packed weight.
#pragma once
#include "cuda/device/float.cuh"
#include "cuda/ops/weight-layout.h"
#include "ops/embedding.h"

namespace linattn::cuda {

__device__ __forceinline__ float as_float(int8_t x) { return static_cast<float>(x); }

template <class W>
struct EmbeddingView {
  const int32_t* ids;
  int rows;
  const W* weights;
  const float* scales;
  WeightLayout layout;
  float* out;
  int64_t out_stride;
  Fault* fault;

  // body(k, values) for kWidth values of id t at a time; a row of the weight must then be a multiple of it. For all
  // threads of the block.
  template <int kWidth, class Body>
  __device__ __forceinline__ void for_values(int64_t t, Body body) const {
    const int id = ids[t];
    if (id < 0 || id >= rows) {
      if (threadIdx.x == 0) report(fault, FaultKind::kRange, FaultName::kIds, static_cast<int>(t), id, 0, rows);
      return;
    }
    const W* from = weights + id * layout.padded_depth;
    const int64_t step = static_cast<int64_t>(blockDim.x) * kWidth;
    for (int64_t k = static_cast<int64_t>(threadIdx.x) * kWidth; k < layout.depth; k += step) {
      const auto pack = *reinterpret_cast<const Pack<W, kWidth>*>(from + k);
      const float scale = scales ? scales[layout.scale_index(id, k / layout.group)] : 1.0f;
      float values[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; i++) values[i] = as_float(pack.value[i]) * scale;
      store(out + t * out_stride + k, values);
      body(k, values);
    }
  }
};

template <class W>
EmbeddingView<W> embedding_view(const Embedding& op, Fault* fault) {
  const WeightLayout layout(op.dtype, op.out.shape[1], op.group);
  layout.check(op.weights, op.rows);
  return {op.ids.as<const int32_t>(),
          static_cast<int>(op.rows),
          op.weights.as<const W>(),
          op.scales.as<const float>(),
          layout,
          op.out.as<float>(),
          op.out.stride0,
          fault};
}

}  // namespace linattn::cuda
