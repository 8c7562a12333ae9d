// Meaning and contract: lib/ops/commit-step.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct CommitStep {
  static constexpr const char* kName = "commitStep";
  Tensor rows;     // int32 [N], slot or -1
  Tensor offsets;  // int32 [N + 1]; absent: commits the decode step that has ended, if there is one
  Tensor after;    // any tensor of the step: its failure leaves the step uncommitted
  Tensor table;    // int32 [slots, 16], StepRow

  template <class V>
  void visit(V& v) {
    v.in("rows", rows);
    v.optional("offsets", offsets);
    v.optional("after", after);
    v.inout("table", table);
  }
};

}  // namespace linattn
