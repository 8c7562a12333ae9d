// Meaning and contract: lib/ops/sample.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct Sample {
  static constexpr const char* kName = "sample";
  Tensor logits;      // float32 [N, vocab]
  Tensor rows;        // int32 [N], slot or -1
  Tensor positions;   // int32 [N]
  Tensor params;      // float32 [slots, 8], SamplingParams
  Tensor int_params;  // int32 [slots, 8], SamplingIntParams
  Tensor seen;        // int32 [slots, words], or absent
  Tensor allowed;     // int32 [slots, words], or absent
  Tensor token;       // int32 [N]
  Tensor logprob;     // float32 [N]

  template <class V>
  void visit(V& v) {
    v.in("logits", logits);
    v.in("rows", rows);
    v.in("positions", positions);
    v.in("params", params);
    v.in("intParams", int_params);
    v.optional("seen", seen);
    v.optional("allowed", allowed);
    v.out("token", token);
    v.out("logprob", logprob);
  }
};

}  // namespace linattn
