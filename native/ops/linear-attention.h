// linearAttention: the contract is in lib/ops/linear-attention.ts.
#pragma once
#include "core/op-fields.h"
#include "core/tensor.h"

namespace linattn {

enum class LinearRule : uint8_t { kAdditive = 0, kDelta = 1, kLowRank = 2 };
enum class LinearDecay : uint8_t { kNone = 0, kHead = 1, kToken = 2, kChannel = 3, kValue = 4 };

struct LinearAttention {
  static constexpr const char* kName = "linearAttention";
  Tensor q, k, v;           // [T, Hq, K], [T, Hk, K], [T, Hv, V] float; q, or k and v, may be absent
  Tensor log_decay;         // float32 [H] | float32 [T, H] | [T, H, K] | [T, H, V] float, by `decay`
  Tensor beta;              // float32 [T, H], delta
  Tensor a, b;              // [T, H, K] as q, lowRank
  Tensor state;             // float32 [slots, H, V, K]
  Tensor key_sum;           // float32 [slots, H, K]
  Tensor checkpoint_slots;  // int32 [count]
  Tensor out;               // [T, Ho, V] as q
  Tensor denominator;       // float32 [T, Ho]
  Sequences sequences;
  int32_t checkpoint_every = 0;  // 0 = none
  float scale = 1, eps = 0;
  bool normalize = false;
  LinearRule rule = LinearRule::kAdditive;
  LinearDecay decay = LinearDecay::kNone;

  template <class V>
  void visit(V& visitor) {
    visitor.optional("q", q);
    visitor.optional("k", k);
    visitor.optional("v", v);
    visitor.optional("logDecay", log_decay);
    visitor.optional("beta", beta);
    visitor.optional("a", a);
    visitor.optional("b", b);
    visitor.inout("state", state);
    visitor.inout("keySum", key_sum);
    visitor.optional("checkpointSlots", checkpoint_slots);
    visitor.out("out", out);
    visitor.out("denominator", denominator);
    sequences.visit(visitor);
    visitor.number("checkpointEvery", checkpoint_every);
    visitor.number("scale", scale);
    visitor.number("eps", eps);
    visitor.number("normalize", normalize);
    visitor.number("rule", rule);
    visitor.number("decay", decay);
  }
};

}  // namespace linattn
