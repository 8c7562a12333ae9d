#include "ops/begin-step.h"

#include "cpu/cpu.h"
#include "ops/step-table.h"

namespace linattn::cpu {

void run(const BeginStep& op, Cpu&) {
  const int64_t count = op.rows.shape[0];
  const auto* rows = op.rows.as<int32_t>();
  const auto* offsets = op.offsets.as<int32_t>();
  check_step_rows(op.table, op.rows, op.kName);
  for (int64_t n = 0; n < count; n++) {
    StepRow row{-1, -1, 0, 0, 0, 0, 0, 0, -1, 0, {}};
    if (rows[n] >= 0) {
      StepRow& kept = *step_row(op.table, rows[n], op.kName);
      commit_decode(kept);
      row = kept;
      if (op.tokens && !row.live) {
        row.read = row.write = -1;
      } else {
        kept.processed += offsets[n + 1] - offsets[n];
      }
    }
    op.read_slots.as<int32_t>()[n] = row.read;
    op.write_slots.as<int32_t>()[n] = row.write;
    op.positions.as<int32_t>()[n] = row.length;
    op.next_positions.as<int32_t>()[n] = row.length + offsets[n + 1] - offsets[n];
    if (op.tokens) op.tokens.as<int32_t>()[n] = row.token;
  }
}

}  // namespace linattn::cpu
