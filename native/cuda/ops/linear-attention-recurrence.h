// The recurrence of linearAttention, token by token: decode (one token) and whatever the chunks do not take. The same
// arithmetic for both, so that no split of a sequence changes a bit.
#pragma once
#include "cuda/ops/linear-attention.h"

namespace linattn::cuda {

// Row t starts at element t * stride.
struct Strided {
  const void* data;
  int64_t stride;
};

// One pass over rows and heads: of the states, or of the key sums, which are states with V = 1 where v = 1.
struct Recurrence {
  LinearSizes sizes;
  SequencesView sequences;
  int first_row, end_row;
  bool single;                             // row n is token n
  Strided q, k, v, beta, a, b, log_decay;  // null: absent; v null beside k: 1
  LinearDecay decay;
  bool aligned;          // q, k, a, b and log_decay, to four elements
  bool state_aligned;    // to 16 bytes
  Strided out;           // as q, or null
  float* sums;           // instead of out: [T, Ho]
  const float* divisor;  // [T, Ho] or null; out = S'q / (divisor + eps)
  float* state;          // or null: from zero, the end is dropped
  int64_t slot_stride;
  const int32_t* checkpoint_slots;
  int checkpoint_count, checkpoint_every;  // every 0: none
  float scale, eps;
  Fault* fault;
};

// The pass over the states.
Recurrence state_recurrence(const LinearAttention& op, const LinearSizes& sizes, Cuda& cuda);

// T: the dtype of q, k and v. `step`: rows of a single token, all aligned, no checkpoints.
template <class T>
void run_recurrence(const Recurrence& x, LinearRule rule, bool step, Cuda& cuda);

}  // namespace linattn::cuda
