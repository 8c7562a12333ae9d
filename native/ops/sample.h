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
  Tensor sampled;     // int32 [2, N]: tokens; the bits of their logprobs, float32

  int32_t* token() const { return sampled.as<int32_t>(); }
  float* logprob() const { return reinterpret_cast<float*>(token() + logits.shape[0]); }

  template <class V>
  void visit(V& v) {
    v.in("logits", logits);
    v.in("rows", rows);
    v.in("positions", positions);
    v.in("params", params);
    v.in("intParams", int_params);
    v.optional("seen", seen);
    v.optional("allowed", allowed);
    v.out("sampled", sampled);
  }
};

}  // namespace linattn
