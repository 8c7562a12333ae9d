// markSeen: everything is checked before the first bit is set. A decode step is one launch, a prompt three.
#include <algorithm>

#include "cuda/device/launch.cuh"
#include "ops/mark-seen.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostThreads = 1024;
constexpr int64_t kTokensOfBlock = 1024;
constexpr int64_t kMostParts = 64;

struct MarkView {
  uint32_t* seen;
  int64_t stride;
  int slots, words;
  const int32_t *rows, *offsets, *tokens;
  int row_count, token_count, vocab;
  Fault* fault;

  __device__ bool is_row(int n) const {
    const auto in = [&](FaultName name, int i, int value, int low, int high) {
      if (value >= low && value <= high) return true;
      report(fault, FaultKind::kFromTo, name, i, value, low, high);
      return false;
    };
    return in(FaultName::kRows, n, rows[n], -1, slots - 1) && in(FaultName::kOffsets, n, offsets[n], 0, token_count) &&
           in(FaultName::kOffsets, n + 1, offsets[n + 1], offsets[n], token_count);
  }

  __device__ bool is_token(int t) const {
    if (tokens[t] >= 0 && tokens[t] < vocab) return true;
    report(fault, FaultKind::kFromTo, FaultName::kTokens, t, tokens[t], 0, vocab - 1);
    return false;
  }

  __device__ void mark(int slot, int t) const {
    atomicOr(seen + slot * stride + tokens[t] / 32, 1u << (tokens[t] % 32));
  }
};

// One block; its rows have a token or a few each.
__global__ void __launch_bounds__(kMostThreads) check_and_mark(MarkView x) {
  wait_for_inputs();
  const auto for_tokens = [&](auto body) {
    for (int n = static_cast<int>(threadIdx.x); n < x.row_count; n += static_cast<int>(blockDim.x)) {
      if (x.rows[n] < 0) continue;
      for (int t = x.offsets[n]; t < x.offsets[n + 1]; t++) body(x.rows[n], t);
    }
  };
  bool wrong = false;
  for (int n = static_cast<int>(threadIdx.x); n < x.row_count; n += static_cast<int>(blockDim.x)) {
    wrong |= !x.is_row(n);
  }
  if (__syncthreads_or(wrong)) return;
  for_tokens([&](int, int t) { wrong |= !x.is_token(t); });
  if (__syncthreads_or(wrong)) return;
  for_tokens([&](int slot, int t) { x.mark(slot, t); });
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
  const MarkView x = {op.seen.as<uint32_t>(),
                      op.seen.stride0,
                      static_cast<int>(op.seen.shape[0]),
                      static_cast<int>(op.seen.shape[1]),
                      op.rows.as<const int32_t>(),
                      op.offsets.as<const int32_t>(),
                      op.tokens.as<const int32_t>(),
                      static_cast<int>(op.rows.shape[0]),
                      static_cast<int>(op.tokens.shape[0]),
                      static_cast<int>(op.vocab),
                      cuda.fault()};
  const int64_t rows = x.row_count, tokens = x.token_count;
  if (rows == 0) return;
  if (!op.clear && tokens <= 4 * rows) {
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
