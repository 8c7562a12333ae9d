#include <algorithm>

#include "cuda/device/copy-bytes.cuh"
#include "cuda/device/launch.cuh"
#include "ops/gather-rows.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPieceBytes = 64 * 1024;  // of a block

// Strides and width in words.
template <class W>
__global__ void __launch_bounds__(kThreads) gather(const W* x, int64_t stride, const int32_t* rows, int count, W* out,
                                                   int64_t width, int pieces, Fault* fault) {
  const int64_t piece_words = kPieceBytes / static_cast<int64_t>(sizeof(W));
  const int64_t m = blockIdx.x / static_cast<unsigned>(pieces), begin = blockIdx.x % pieces * piece_words;
  wait_for_inputs();
  const int row = rows[m];
  if (row < 0 || row >= count) {
    if (threadIdx.x == 0) report(fault, FaultKind::kRange, FaultName::kRows, static_cast<int>(m), row, 0, count);
    return;
  }
  copy_words(out + m * width, x + row * stride, begin, min(begin + piece_words, width));
}

}  // namespace

void run(const GatherRows& op, Cuda& cuda) {
  const auto element = static_cast<int64_t>(dtype_bytes(op.x.dtype));
  const int64_t bytes = op.x.inner() * element, stride = op.x.stride0 * element;
  const auto pieces = std::max<int64_t>(ceil_div(bytes, kPieceBytes), 1);
  const uintptr_t bits = reinterpret_cast<uintptr_t>(op.x.data) | reinterpret_cast<uintptr_t>(op.out.data) |
                         static_cast<uintptr_t>(bytes) | static_cast<uintptr_t>(stride);
  for_word(bits, [&](auto word) {
    using W = decltype(word);
    const auto size = static_cast<int64_t>(sizeof(W));
    launch_early(cuda, gather<W>, dim3(static_cast<unsigned>(op.rows.shape[0] * pieces)), dim3(kThreads), 0,
                 op.x.as<const W>(), stride / size, op.rows.as<const int32_t>(), static_cast<int>(op.x.shape[0]),
                 op.out.as<W>(), bytes / size, static_cast<int>(pieces), cuda.fault());
  });
}

}  // namespace linattn::cuda
