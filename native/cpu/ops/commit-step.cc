#include "ops/commit-step.h"

#include "cpu/cpu.h"
#include "ops/step-table.h"

namespace linattn::cpu {

void run(const CommitStep& op, Cpu&) {
  const int64_t count = op.rows.shape[0];
  const auto* rows = op.rows.as<int32_t>();
  check_step_rows(op.table, op.rows, op.kName);
  for (int64_t n = 0; n < count; n++) {
    if (rows[n] < 0) continue;
    StepRow& row = *step_row(op.table, rows[n], op.kName);
    if (!op.offsets) {
      commit_decode(row);
      continue;
    }
    const auto* offsets = op.offsets.as<int32_t>();
    swap_halves(row);
    row.length += offsets[n + 1] - offsets[n];
  }
}

}  // namespace linattn::cpu
