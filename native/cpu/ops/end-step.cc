#include "ops/end-step.h"

#include "cpu/cpu.h"
#include "ops/step-table.h"

namespace linattn::cpu {

void run(const EndStep& op, Cpu&) {
  const int64_t count = op.rows.shape[0];
  const auto* rows = op.rows.as<int32_t>();
  check_step_rows(op.table, op.rows, op.kName);
  for (int64_t n = 0; n < count; n++) {
    if (rows[n] < 0) continue;
    StepRow& row = *step_row(op.table, rows[n], op.kName);
    if (op.consumed && !row.live) continue;
    const int32_t token = op.sampled.as<int32_t>()[n];
    if (op.consumed) {
      row.next_token = token;
      row.uncommitted = 1;
    } else {
      row.token = token;
    }
    const auto* stops = op.stop_ids.row<int32_t>(rows[n]);
    for (int64_t i = 0; i < op.stop_ids.shape[1]; i++) {
      if (stops[i] == token) row.live = 0;
    }
    if (--row.remaining <= 0) row.live = 0;
  }
}

}  // namespace linattn::cpu
