// One block: what it does is little, and each kernel more costs a wait.
#include "cuda/device/launch.cuh"
#include "cuda/fusions.h"
#include "cuda/ops/begin-decode.h"
#include "cuda/ops/begin-step.cuh"
#include "cuda/ops/embedding.cuh"
#include "cuda/ops/mark-seen.cuh"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostTokens = 4;
constexpr int kWidth = 8;

template <class W, class X>
__global__ void __launch_bounds__(kThreads)
    begin(const BeginView step, const MarkView marks, const EmbeddingView<W> embedding, X* converted) {
  wait_for_inputs();
  step.begin();
  __syncthreads();
  marks.check_and_mark();
#pragma unroll 1
  for (int t = 0; t < step.rows.count; t++) {
    embedding.template for_values<kWidth>(t, [&](int64_t k, const float (&values)[kWidth]) {
      store(converted + t * embedding.layout.depth + k, values);
    });
  }
}

bool same(const Tensor& a, const Tensor& b) {
  return a.data == b.data && a.dtype == b.dtype && a.size() == b.size() && a.contiguous() && b.contiguous();
}

}  // namespace

bool begin_decode(const BeginStep& step, const MarkSeen& marks, const Embedding& embedding, const Convert& convert,
                  Cuda& cuda) {
  const Tensor& converted = convert.out;
  if (!step.tokens || step.rows.shape[0] > kMostTokens || !marks_few(marks) || convert.into ||
      !same(marks.tokens, step.tokens) || !same(embedding.ids, step.tokens) || !same(embedding.out, convert.x) ||
      embedding.out.shape[1] % kWidth != 0 || dtype_bytes(converted.dtype) != 2 || embedding.dtype != converted.dtype ||
      !apart({step.table, step.tokens, step.positions, step.next_positions, step.read_slots, step.write_slots,
              embedding.out, converted, marks.seen},
             {step.rows, step.offsets, marks.rows, marks.offsets, embedding.weights, embedding.scales})) {
    return false;
  }
  const auto fault = [&](int op) { return cuda.faults + op; };
  cuda.op = kOpIndex<BeginStep>;
  for_float(converted.dtype, [&](auto x) {
    using X = decltype(x);
    if constexpr (sizeof(X) == 2) {
      launch_early(cuda, begin<X, X>, dim3(1), dim3(kThreads), 0, begin_view(step, cuda),
                   mark_view(marks, fault(kOpIndex<MarkSeen>)),
                   embedding_view<X>(embedding, fault(kOpIndex<Embedding>)), converted.as<X>());
    }
  });
  return true;
}

}  // namespace linattn::cuda
