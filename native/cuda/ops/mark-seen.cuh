// What the kernels of markSeen share: everything is checked before the first bit is set.
#pragma once
#include "cuda/cuda.h"
#include "ops/mark-seen.h"

namespace linattn::cuda {

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

  // One block; its rows have a token or a few each.
  __device__ __forceinline__ void check_and_mark() const {
    const auto for_tokens = [&](auto body) {
      for (int n = static_cast<int>(threadIdx.x); n < row_count; n += static_cast<int>(blockDim.x)) {
        if (rows[n] < 0) continue;
        for (int t = offsets[n]; t < offsets[n + 1]; t++) body(rows[n], t);
      }
    };
    bool wrong = false;
    for (int n = static_cast<int>(threadIdx.x); n < row_count; n += static_cast<int>(blockDim.x)) {
      wrong |= !is_row(n);
    }
    if (__syncthreads_or(wrong)) return;
    for_tokens([&](int, int t) { wrong |= !is_token(t); });
    if (__syncthreads_or(wrong)) return;
    for_tokens([&](int slot, int t) { mark(slot, t); });
  }
};

// Whether the step is for one block.
inline bool marks_few(const MarkSeen& op) { return !op.clear && op.tokens.shape[0] <= 4 * op.rows.shape[0]; }

inline MarkView mark_view(const MarkSeen& op, Fault* fault) {
  return {op.seen.as<uint32_t>(),
          op.seen.stride0,
          static_cast<int>(op.seen.shape[0]),
          static_cast<int>(op.seen.shape[1]),
          op.rows.as<const int32_t>(),
          op.offsets.as<const int32_t>(),
          op.tokens.as<const int32_t>(),
          static_cast<int>(op.rows.shape[0]),
          static_cast<int>(op.tokens.shape[0]),
          static_cast<int>(op.vocab),
          fault};
}

}  // namespace linattn::cuda
