// Meaning and contract: lib/ops/machine-peak.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

enum class PeakKind : uint8_t { kMultiplyAdd, kDotBFloat16, kRead };

struct MachinePeak {
  static constexpr const char* kName = "machinePeak";
  Tensor values;  // float32, contiguous; kRead only
  Tensor out;     // float32 [1]
  PeakKind kind = PeakKind::kMultiplyAdd;

  template <class V>
  void visit(V& v) {
    v.optional("values", values);
    v.out("out", out);
    v.number("kind", kind);
  }
};

}  // namespace linattn
