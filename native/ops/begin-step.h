// Meaning and contract: lib/ops/begin-step.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct BeginStep {
  static constexpr const char* kName = "beginStep";
  Tensor rows;                                                // int32 [N], slot or -1
  Tensor offsets;                                             // int32 [N + 1]
  Tensor table;                                               // int32 [slots, 16], StepRow
  Tensor read_slots, write_slots, positions, next_positions;  // int32 [N]
  Tensor tokens;                                              // int32 [N], pending tokens; absent in prefill

  template <class V>
  void visit(V& v) {
    v.in("rows", rows);
    v.in("offsets", offsets);
    v.inout("table", table);
    v.out("readSlots", read_slots);
    v.out("writeSlots", write_slots);
    v.out("positions", positions);
    v.out("nextPositions", next_positions);
    v.out("tokens", tokens);
  }
};

}  // namespace linattn
