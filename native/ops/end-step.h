// Meaning and contract: lib/ops/end-step.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct EndStep {
  static constexpr const char* kName = "endStep";
  Tensor rows;           // int32 [N], slot or -1
  Tensor sampled;        // int32 [N]
  Tensor stop_ids;       // int32 [slots, M], -1 = none
  Tensor table;          // int32 [slots, 16], StepRow
  int32_t consumed = 0;  // 1: the step consumed the pending token (decode); 0: it ended a prompt

  template <class V>
  void visit(V& v) {
    v.in("rows", rows);
    v.in("sampled", sampled);
    v.in("stopIds", stop_ids);
    v.inout("table", table);
    v.number("consumed", consumed);
  }
};

}  // namespace linattn
