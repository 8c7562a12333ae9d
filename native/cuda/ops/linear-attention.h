// What the kernels of linearAttention share: sizes, which head reads which, the tokens and checkpoints of a row. Rows
// [0, single_rows) take the step kernel; the others the chunks where those support the op, else the recurrence.
#pragma once
#include "cuda/cuda.h"
#include "cuda/device/float.cuh"
#include "cuda/device/sequences.cuh"
#include "ops/linear-attention.h"

namespace linattn::cuda {

struct LinearSizes {
  int rows, single_rows, tokens, max_tokens;
  int Hq, Hk, Hv;  // as the tensors have them; Hq 0 without q, Hk and Hv 0 without k and v
  int H, Ho, G;    // state heads, output heads, and output heads of a state head: Ho / H
  // Multiplying by one and keeping the high word divides by how many heads read one of q, k, v; 0: one does.
  uint32_t q_share, k_share, v_share;
  int K, V, slots;
  DType dtype;       // of q, k, v, a, b, out
  DType gate_dtype;  // of log_decay
  // Of each row, int32 [rows + 1] on the device: entries of checkpoint_slots before its own. Null without checkpoints.
  const int32_t* checkpoint_begin;
};

LinearSizes sizes_of(const LinearAttention& op);

// Whether run_chunks takes the rows from single_rows on.
bool chunk_supports(const LinearAttention& op, const LinearSizes& sizes, const Cuda& cuda);
void run_chunks(const LinearAttention& op, const LinearSizes& sizes, Cuda& cuda);

// At most these many heads: a dimension of the grid, and 16 bits for shared_head.
constexpr int kMostHeads = 65535;

// Head j of `large` heads reads this one of `small`.
__host__ __device__ constexpr int head_of(int j, int small, int large) {
  return static_cast<int>(static_cast<int64_t>(j) * small / large);
}
__device__ __forceinline__ int shared_head(int j, uint32_t share) {
  return share == 0 ? j : static_cast<int>(__umulhi(static_cast<unsigned>(j), share));
}
// The heads of q, k and v that state head h reads; `i` of G is which of its output heads h * G + i.
__device__ __forceinline__ int q_head(const LinearSizes& x, int h, int i) {
  return shared_head(h * x.G + i, x.q_share);
}
__device__ __forceinline__ int k_head(const LinearSizes& x, int h) { return shared_head(h, x.k_share); }
__device__ __forceinline__ int v_head(const LinearSizes& x, int h) { return shared_head(h, x.v_share); }

// The packed tokens of a row.
struct RowTokens {
  int first, count;
};

// None, with a report, where the offsets make no sense.
__device__ __forceinline__ RowTokens row_tokens(const SequencesView& s, int n, Fault* fault) {
  const int first = s.offsets[n], end = s.offsets[n + 1];
  if (first >= 0 && first <= end && end <= s.tokens) return {first, end - first};
  report(fault, FaultKind::kOffsets, FaultName::kRows, n, end, first, s.tokens);
  return {0, 0};
}

// Of row n where every row has one token: its tokens [first, end) are not [n, n + 1).
__device__ inline LINATTN_NO_INLINE void report_not_one_token(Fault* fault, int n, int first, int end) {
  const int at = first == n ? n + 1 : n;
  report(fault, FaultKind::kBetween, FaultName::kOffsets, at, at == n ? first : end, at, at);
}

// e^g with g clamped to [-30, 0]; NaN stays NaN. A state is multiplied by it at every token, so an error of it grows
// with the tokens: expf may be off by a unit in the last place, this is the nearest number but for 1 in 30.
__device__ __forceinline__ float decay_of(float g) {
  g = g < -30.0f ? -30.0f : g > 0.0f ? 0.0f : g;
  const float n = rintf(g * 0x1.715476p+0f);
  float r = fmaf(n, -0x1.62e4p-1f, g);  // the first 15 bits of log(2): n times them is exact
  r = fmaf(n, -0x1.7f7d1cp-20f, r);     // the rest of log(2)
  float p = 0.001381459878757596f;      // e^r = 1 + r + r^2 p(r), as on the CPU (native/cpu/simd-math.inc)
  p = fmaf(p, r, 0.008368716575205326f);
  p = fmaf(p, r, 0.04166838899254799f);
  p = fmaf(p, r, 0.1666652113199234f);
  p = fmaf(p, r, 0.4999999403953552f);
  const float e = fmaf(r * r, p, r) + 1.0f;
  return e * __int_as_float((static_cast<int>(n) + 127) << 23);
}

// The tokens of a row after which its state is copied, in order: how many tokens after its start the first one comes.
// Position p = positions[n] + tokens is a multiple of `every` there.
__device__ __forceinline__ int first_checkpoint(int position, int every) { return every - position % every; }

}  // namespace linattn::cuda
