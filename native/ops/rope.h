// Rotary position embedding; meaning and contract in lib/ops/rope.ts.
#pragma once
#include "core/op-fields.h"

namespace linattn {

enum class RopePairing : uint8_t { kHalf, kInterleaved };

struct Rope {
  static constexpr const char* kName = "rope";
  Tensor x;                    // [T, H, D] any float
  Tensor inverse_frequencies;  // float32 [rotary / 2]
  Tensor out;                  // as x
  Sequences sequences;         // offsets and positions
  RopePairing pairing = RopePairing::kHalf;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.in("inverseFrequencies", inverse_frequencies);
    v.out("out", out);
    sequences.visit(v);
    v.number("pairing", pairing);
  }
};

}  // namespace linattn
