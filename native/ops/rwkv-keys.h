// Meaning and contract: lib/ops/rwkv-keys.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

struct RwkvKeys {
  static constexpr const char* kName = "rwkvKeys";
  Tensor r, k, a;                           // [T, H, K] any float, alike
  Tensor key_scale, key_mix, bonus_weight;  // float32 [H, K]
  Tensor read, write, key;                  // [T, H, K] as k
  Tensor bonus;                             // float32 [T, H]

  template <class V>
  void visit(V& v) {
    v.in("r", r);
    v.in("k", k);
    v.in("a", a);
    v.in("keyScale", key_scale);
    v.in("keyMix", key_mix);
    v.in("bonusWeight", bonus_weight);
    v.out("read", read);
    v.out("write", write);
    v.out("key", key);
    v.out("bonus", bonus);
  }
};

}  // namespace linattn
