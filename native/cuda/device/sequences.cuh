// Packed tokens in kernels: which sequence a token belongs to, and slots that are checked before they are used.
#pragma once
#include "core/op-fields.h"
#include "cuda/cuda.h"
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

// Sequences as a kernel argument.
struct SequencesView {
  int rows, tokens;
  const int32_t *offsets, *read_slots, *write_slots, *positions;
};

inline SequencesView view_of(const Sequences& s) {
  return {s.rows,
          s.tokens,
          s.offsets.as<const int32_t>(),
          s.read_slots.as<const int32_t>(),
          s.write_slots.as<const int32_t>(),
          s.positions.as<const int32_t>()};
}

// The sequence that holds packed token t: the last n with offsets[n] <= t. In -1 for tokens outside all sequences.
__device__ __forceinline__ int row_of_token(const SequencesView& s, int t) {
  if (s.rows == s.tokens && s.offsets[t] == t) return t;  // one token each
  int low = 0, high = s.rows;
  while (low + 1 < high) {
    const int middle = (low + high) / 2;
    if (s.offsets[middle] <= t) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return t < s.offsets[low] || t >= s.offsets[low + 1] ? -1 : low;
}

// A slot of `slots`, or -1; one that is not there is reported and becomes -1.
__device__ __forceinline__ int checked_slot(Fault* fault, FaultName name, const int32_t* list, int n, int slots) {
  const int slot = list[n];
  if (slot >= -1 && slot < slots) return slot;
  report(fault, FaultKind::kRange, name, n, slot, -1, slots);
  return -1;
}

// Outside of a recorded graph: that offsets rise from 0 to the tokens, that slots are in [-1, slots), that no slot is
// written twice, and that none is read by one sequence and written by another. `slots` < 0: offsets alone. Kernels
// still take slots through checked_slot, for what a recorded graph meets.
void check_sequences(Cuda& cuda, const Sequences& sequences, int64_t slots);

}  // namespace linattn::cuda
