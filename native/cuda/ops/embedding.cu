// Rows of a packed weight, a block each.
#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/ops/weight-layout.h"
#include "ops/embedding.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ float as_float(int8_t x) { return static_cast<float>(x); }
using linattn::cuda::as_float;

// kWidth values at a time; a row of the weight and of `out` must then be a multiple of it.
template <class W, int kWidth>
__global__ void __launch_bounds__(kThreads) gather(const int32_t* ids, int rows, const W* weights, const float* scales,
                                                   WeightLayout layout, float* out, int64_t out_stride, Fault* fault) {
  wait_for_inputs();
  const int64_t t = blockIdx.x;
  const int id = ids[t];
  if (id < 0 || id >= rows) {
    if (threadIdx.x == 0) report(fault, FaultKind::kRange, FaultName::kIds, static_cast<int>(t), id, 0, rows);
    return;
  }
  const W* from = weights + id * layout.padded_depth;
  for (int64_t k = static_cast<int64_t>(threadIdx.x) * kWidth; k < layout.depth; k += kThreads * kWidth) {
    const auto pack = *reinterpret_cast<const Pack<W, kWidth>*>(from + k);
    const float scale = scales ? scales[layout.scale_index(id, k / layout.group)] : 1.0f;
    float values[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; i++) values[i] = as_float(pack.value[i]) * scale;
    store(out + t * out_stride + k, values);
  }
}

}  // namespace

void run(const Embedding& op, Cuda& cuda) {
  const WeightLayout layout(op.dtype, op.out.shape[1], op.group);
  layout.check(op.weights, op.rows);
  const auto gather_as = [&](auto w) {
    using W = decltype(w);
    const auto kernel = layout.depth % 8 == 0 && op.out.stride0 % 8 == 0 ? gather<W, 8> : gather<W, 1>;
    launch_early(cuda, kernel, static_cast<unsigned>(op.ids.shape[0]), kThreads, 0, op.ids.as<const int32_t>(), op.rows,
                 op.weights.as<const W>(), op.scales.as<const float>(), layout, op.out.as<float>(), op.out.stride0,
                 cuda.fault());
  };
  if (op.dtype == DType::kInt8) {
    gather_as(int8_t{});
  } else {
    for_float(op.dtype, gather_as);
  }
}

}  // namespace linattn::cuda
