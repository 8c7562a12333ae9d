// beginStep as a block does it.
#pragma once
#include "cuda/ops/step-rows.cuh"
#include "ops/begin-step.h"

namespace linattn::cuda {

struct BeginView {
  StepRows rows;
  const int32_t* offsets;
  int32_t *read_slots, *write_slots, *positions, *next_positions, *tokens;

  // For all threads of the block.
  __device__ __forceinline__ void begin() const {
    if (!rows.all_there()) return;
    for (int n = static_cast<int>(threadIdx.x); n < rows.count; n += static_cast<int>(blockDim.x)) {
      const int step_tokens = offsets[n + 1] - offsets[n];
      StepRow row{-1, -1, 0, 0, 0, 0, 0, 0, -1, 0, {}};
      if (rows.slots[n] >= 0) {
        StepRow& kept = rows.at(rows.slots[n]);
        commit_decode(kept);
        row = kept;
        if (tokens && !row.live) {
          row.read = row.write = -1;
        } else {
          kept.processed += step_tokens;
        }
      }
      read_slots[n] = row.read;
      write_slots[n] = row.write;
      positions[n] = row.length;
      next_positions[n] = row.length + step_tokens;
      if (tokens) tokens[n] = row.token;
    }
  }
};

inline BeginView begin_view(const BeginStep& op, const Cuda& cuda) {
  return {step_rows(op.rows, op.table, cuda),
          op.offsets.as<const int32_t>(),
          op.read_slots.as<int32_t>(),
          op.write_slots.as<int32_t>(),
          op.positions.as<int32_t>(),
          op.next_positions.as<int32_t>(),
          op.tokens.as<int32_t>()};
}

}  // namespace linattn::cuda
