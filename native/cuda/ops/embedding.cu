// A block a row.
#include "cuda/device/launch.cuh"
#include "cuda/ops/embedding.cuh"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 128;

// kWidth values at a time; a row of the weight and of `out` must then be a multiple of it.
template <class W, int kWidth>
__global__ void __launch_bounds__(kThreads) gather(EmbeddingView<W> x) {
  wait_for_inputs();
  x.template for_values<kWidth>(blockIdx.x, [](int64_t, const float (&)[kWidth]) {});
}

}  // namespace

void run(const Embedding& op, Cuda& cuda) {
  const auto gather_as = [&](auto w) {
    using W = decltype(w);
    const auto x = embedding_view<W>(op, cuda.fault());
    const auto kernel = x.layout.depth % 8 == 0 && x.out_stride % 8 == 0 ? gather<W, 8> : gather<W, 1>;
    launch_early(cuda, kernel, static_cast<unsigned>(op.ids.shape[0]), kThreads, 0, x);
  };
  if (op.dtype == DType::kInt8) {
    gather_as(int8_t{});
  } else {
    for_float(op.dtype, gather_as);
  }
}

}  // namespace linattn::cuda
