// copySlots: one block checks all pairs, then the copies are made or none is.
#include <algorithm>

#include "cuda/device/copy-bytes.cuh"
#include "cuda/device/launch.cuh"
#include "ops/copy-slots.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMostThreads = 1024;
constexpr int64_t kPieceBytes = 64 * 1024;  // of a block

struct CopyPairs {
  const int32_t *from, *to;
  int count, slots;

  __device__ bool in_range(int slot) const { return slot >= -1 && slot < slots; }
  __device__ bool copies(int i) const { return from[i] >= 0 && to[i] >= 0; }
};

// What the CPU finds wrong with pair i while it reads them in order; 1 for a slot that only all pairs show to be wrong.
__device__ bool report_pair(const CopyPairs& x, int i, bool both, Fault* fault) {
  if (!both) {
    for (const auto name : {FaultName::kFrom, FaultName::kTo}) {
      const int slot = name == FaultName::kFrom ? x.from[i] : x.to[i];
      if (x.in_range(slot)) continue;
      report(fault, FaultKind::kBelow, name, i, slot, 0, x.slots);
      return true;
    }
  }
  for (int other = 0; x.copies(i) && other < (both ? x.count : i); other++) {
    if (!x.copies(other) || (both ? x.from : x.to)[other] != x.to[i]) continue;
    report(fault, both ? FaultKind::kInBoth : FaultKind::kRepeats, FaultName::kTo, i, x.to[i]);
    return true;
  }
  return false;
}

// `writers`, one a slot, are read only where they were written. *sound becomes 1 when the copies may be made.
__global__ void __launch_bounds__(kMostThreads)
    check_pairs(CopyPairs x, volatile int32_t* writers, int32_t* copied, int* sound, Fault* fault) {
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  bool wrong = false;
  for (int i = thread; i < x.count; i += threads) {
    const int from = x.from[i], to = x.to[i];
    copied[i] = from < 0 ? -1 : to;
    wrong |= !x.in_range(from) || !x.in_range(to);
    if (x.copies(i) && to < x.slots) writers[to] = i;
  }
  __syncthreads();
  for (int i = thread; i < x.count; i += threads) {
    const int from = x.from[i], to = x.to[i];
    if (!x.copies(i) || from >= x.slots || to >= x.slots) continue;
    wrong |= writers[to] != i;
    const int writer = writers[from];
    wrong |= writer >= 0 && writer < x.count && x.copies(writer) && x.to[writer] == from;
  }
  wrong = __syncthreads_or(wrong);
  if (thread != 0) return;
  *sound = !wrong;
  for (int i = 0; wrong && i < 2 * x.count; i++) {
    if (report_pair(x, i % x.count, i >= x.count, fault)) return;
  }
}

// Stride and width in words.
template <class W>
__global__ void __launch_bounds__(kThreads)
    copy_pieces(CopyPairs x, W* pool, int64_t stride, int64_t width, int pieces, const int* sound) {
  const int64_t piece_words = kPieceBytes / static_cast<int64_t>(sizeof(W));
  const int i = static_cast<int>(blockIdx.x / static_cast<unsigned>(pieces));
  if (!*sound || !x.copies(i)) return;
  const int64_t begin = blockIdx.x % pieces * piece_words;
  copy_words(pool + x.to[i] * stride, pool + x.from[i] * stride, begin, min(begin + piece_words, width));
}

}  // namespace

void run(const CopySlots& op, Cuda& cuda) {
  const CopyPairs pairs = {op.from.as<const int32_t>(), op.to.as<const int32_t>(), static_cast<int>(op.from.shape[0]),
                           static_cast<int>(op.pool.shape[0])};
  if (pairs.count == 0) return;
  auto* writers = cuda.scratch_of<int32_t>(static_cast<size_t>(pairs.slots));
  auto* sound = cuda.scratch_of<int>(1);
  const auto threads = static_cast<unsigned>(std::min<int64_t>(ceil_div(pairs.count, kWarp) * kWarp, kMostThreads));
  launch(cuda, check_pairs, dim3(1), dim3(threads), 0, pairs, writers, op.copied.as<int32_t>(), sound, cuda.fault());

  const auto element = static_cast<int64_t>(dtype_bytes(op.pool.dtype));
  const int64_t bytes = op.pool.inner() * element, stride = op.pool.stride0 * element;
  const int64_t pieces = ceil_div(bytes, kPieceBytes);
  const uintptr_t bits =
      reinterpret_cast<uintptr_t>(op.pool.data) | static_cast<uintptr_t>(bytes) | static_cast<uintptr_t>(stride);
  for_word(bits, [&](auto word) {
    using W = decltype(word);
    const auto size = static_cast<int64_t>(sizeof(W));
    launch(cuda, copy_pieces<W>, dim3(static_cast<unsigned>(pairs.count * pieces)), dim3(kThreads), 0, pairs,
           op.pool.as<W>(), stride / size, bytes / size, static_cast<int>(pieces), sound);
  });
}

}  // namespace linattn::cuda
