// favorFeatures: the contract is in lib/ops/favor-features.ts.
#pragma once
#include "core/op-fields.h"
#include "core/tensor.h"

namespace linattn {

// The orders are those of the lists in lib/ops/favor-features.ts.
enum class FavorKind : uint8_t { kPositive, kHyperbolic, kRelu };
enum class FavorMaximum : uint8_t { kNone, kToken, kRunning, kSequence };

struct FavorFeatures {
  static constexpr const char* kName = "favorFeatures";
  Tensor x;          // [T, H, D] float
  Tensor projected;  // float32 [T, H, m], W y; or absent
  Tensor weights;    // else of W, [m, D] packed as float32: on CUDA, of bfloat16 x, m and D multiples of 16
  Tensor decay;      // float32 [H] or [T, H], added to log_decay
  Tensor key_max;    // float32 [slots, H]
  Tensor out;        // [T, H, F] as x: the features, then zeros
  Tensor peak;       // float32 [T, H]: the exponent that is subtracted
  Tensor log_decay;  // float32 [T, H]
  Sequences sequences;
  FavorKind kind = FavorKind::kPositive;
  FavorMaximum maximum = FavorMaximum::kNone;
  int directions = 0;  // m
  float scale = 1, eps = 0;

  template <class V>
  void visit(V& v) {
    v.in("x", x);
    v.optional("projected", projected);
    v.optional("weights", weights);
    v.optional("decay", decay);
    v.inout("keyMax", key_max);
    v.out("out", out);
    v.out("peak", peak);
    v.out("logDecay", log_decay);
    sequences.visit(v);
    v.number("kind", kind);
    v.number("maximum", maximum);
    v.number("directions", directions);
    v.number("scale", scale);
    v.number("eps", eps);
  }
};

}  // namespace linattn
