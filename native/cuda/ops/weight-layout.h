// How packed weights lie in a GPU's memory: [N][K], row after row, in the bytes that the CPU's panels take
// (lib/ops/weight.ts): K is even in memory (an odd one has an input of weight 0), N a multiple of 32 (the rows beyond
// are 0). Scales of int8: float32 [panels][groups][32], one group or groups of `group` inputs.
#pragma once
#include "core/error.h"
#include "core/tensor.h"
#include "cuda/device/platform.cuh"

namespace linattn::cuda {

struct WeightLayout {
  static constexpr int64_t kPanel = 32;

  WeightLayout(DType weight_dtype, int64_t inputs, int64_t inputs_of_group)
      : dtype(weight_dtype),
        depth(inputs),
        padded_depth(inputs + inputs % 2),
        group(inputs_of_group ? inputs_of_group : padded_depth),
        groups(ceil_div(inputs, group)) {}

  // Throws unless `weights` has room for that many outputs.
  void check(const Tensor& weights, int64_t outputs) const {
    const int64_t rows = ceil_div(outputs, kPanel) * kPanel;
    if (weights.size() < rows * row_bytes()) throw Error("ERR_SHAPE", "cuda: a weight is smaller than its shape");
  }
  int64_t row_bytes() const { return padded_depth * static_cast<int64_t>(dtype_bytes(dtype)); }

  // Of output n and group g.
  constexpr int64_t scale_index(int64_t n, int64_t g) const { return (n / kPanel * groups + g) * kPanel + n % kPanel; }

  DType dtype;
  int64_t depth, padded_depth;
  int64_t group, groups;  // inputs that share a scale; how many such groups
};

}  // namespace linattn::cuda
