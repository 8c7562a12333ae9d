// Meaning and contract: lib/ops/copy-slots.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct CopySlots {
  static constexpr const char* kName = "copySlots";
  Tensor pool;      // [slots, ...] any dtype, in place
  Tensor from, to;  // int32 [n], slot or -1
  Tensor copied;    // int32 [n]

  template <class V>
  void visit(V& v) {
    v.inout("pool", pool);
    v.in("from", from);
    v.in("to", to);
    v.out("copied", copied);
  }
};

}  // namespace linattn
