// How packed weights lie in memory: what packWeight writes and matmul and embedding read. A weight of a linear layer is
// [N outputs, K inputs]. Its panels hold 32 outputs each, one after the other; a panel holds its inputs in rising
// order:
//   float32   [K][32]         float16   [K][32]         int8   [K][32]
//   bfloat16  [K/2][32][2]: the pair that one 32-bit lane of a dot product takes
// K is even in memory (an odd one has an input of weight 0), N a multiple of 32. Scales of int8: float32
// [panels][groups][32], one group or groups of `group` inputs.
#pragma once
#include <cstdint>

#include "core/dtype.h"

namespace linattn::cpu {

constexpr int64_t kPanel = 32;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct WeightLayout {
  WeightLayout(DType weight_dtype, int64_t inputs, int64_t inputs_of_group)
      : dtype(weight_dtype),
        depth(inputs),
        padded_depth(inputs + inputs % 2),
        group(inputs_of_group ? inputs_of_group : padded_depth),
        groups(ceil_div(inputs, group)),
        panel_bytes(padded_depth * kPanel * static_cast<int64_t>(dtype_bytes(weight_dtype))) {}

  // Of output n, input k, in elements.
  int64_t index(int64_t n, int64_t k) const {
    const int64_t panel = n / kPanel * padded_depth * kPanel, column = n % kPanel;
    if (dtype == DType::kBFloat16) return panel + (k / 2 * kPanel + column) * 2 + k % 2;
    return panel + k * kPanel + column;
  }
  int64_t scale_index(int64_t n, int64_t k) const { return (n / kPanel * groups + k / group) * kPanel + n % kPanel; }

  DType dtype;
  int64_t depth, padded_depth;
  int64_t group, groups;  // inputs that share a scale; how many such groups
  int64_t panel_bytes;
};

}  // namespace linattn::cpu
