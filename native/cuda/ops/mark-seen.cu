// markSeen: everything is checked before the first bit is set. A decode step is one launch, a prompt three.
#include <algorithm>

#include "cuda/device/launch.cuh"
#include "cuda/ops/mark-seen.cuh"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostThreads = 1024;
constexpr int64_t kTokensOfBlock = 1024;
constexpr int64_t kMostParts = 64;

__global__ void __launch_bounds__(kMostThreads) check_and_mark(MarkView x) {
  wait_for_inputs();
  x.check_and_mark();
}

// Block (n, part): a part of row n's tokens.
template <class Body>
__device__ void for_part(const MarkView& x, int n, Body body) {
  const int step = static_cast<int>(gridDim.y * blockDim.x);
  for (int t = x.offsets[n] + static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x); t < x.offsets[n + 1];
       t += step) {
    body(t);
  }
}

__global__ void __launch_bounds__(kThreads) check_rows(MarkView x, int* wrong) {
  const int n = static_cast<int>(blockIdx.x);
  bool bad = !x.is_row(n);
  if (!bad && x.rows[n] >= 0) for_part(x, n, [&](int t) { bad |= !x.is_token(t); });
  if (bad) *wrong = 1;
}

__global__ void __launch_bounds__(kThreads) mark_rows(MarkView x, bool clear, const int* wrong) {
  const int n = static_cast<int>(blockIdx.x), slot = x.rows[n];
  if (*wrong || slot < 0) return;
  if (clear) {
    for (int word = static_cast<int>(threadIdx.x); word < x.words; word += kThreads) x.seen[slot * x.stride + word] = 0;
    __syncthreads();
  }
  for_part(x, n, [&](int t) { x.mark(slot, t); });
}

}  // namespace

void run(const MarkSeen& op, Cuda& cuda) {
  const MarkView x = mark_view(op, cuda.fault());
  const int64_t rows = x.row_count, tokens = x.token_count;
  if (rows == 0) return;
  if (marks_few(op)) {
    const auto threads = static_cast<unsigned>(std::min<int64_t>(ceil_div(rows, kWarp) * kWarp, kMostThreads));
    launch_early(cuda, check_and_mark, dim3(1), dim3(threads), 0, x);
    return;
  }
  auto* wrong = cuda.scratch_of<int>(1);
  check(cudaMemsetAsync(wrong, 0, sizeof(int), cuda.stream));
  const auto parts = static_cast<unsigned>(std::clamp<int64_t>(tokens / (rows * kTokensOfBlock), 1, kMostParts));
  launch(cuda, check_rows, dim3(static_cast<unsigned>(rows), parts), dim3(kThreads), 0, x, wrong);
  launch(cuda, mark_rows, dim3(static_cast<unsigned>(rows), op.clear ? 1 : parts), dim3(kThreads), 0, x, op.clear,
         wrong);
}

}  // namespace linattn::cuda
