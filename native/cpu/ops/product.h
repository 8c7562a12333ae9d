// What a product with a packed weight works on, and its kernels: those of matmul, which groupedMatmul shares.
#pragma once
#include <cstdint>

#include "core/tensor.h"
#include "cpu/level.h"
#include "cpu/weight-layout.h"

namespace linattn::cpu {

// How a level likes its work.
struct Tiling {
  int64_t rows;              // of a micro-kernel
  int64_t pair_of_bfloat16;  // bfloat16 activations in a word
};

struct Product {
  WeightLayout layout;
  Tensor x, out;
  const uint8_t* weights;
  const float* scales;  // may be null, as the bias
  const float* bias;
  int64_t outputs;
  int64_t inputs_per_word;
  int64_t used_words, words;  // of a row of packed activations: those that meet weights, and with padding
  int64_t block_words;        // summed up in registers before the next panel
  float* packed;
};

// Rows times panels of a task; few enough that every thread gets some.
struct ProductTask {
  int64_t rows, panels;
};
ProductTask product_task(int64_t rows, int64_t panels, const Tiling& tiling, int threads);

struct ProductKernels {
  Tiling tiling;
  // Rows [row0, row1) of x to `packed`; rows are packed in blocks from row0 on, which are those of the product.
  void (*pack_rows)(const Product& p, int64_t row0, int64_t row1);
  // Rows [row0, row1) times panels [panel0, panel1); `tiles` has room for their sums.
  void (*multiply)(const Product& p, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1, float* tiles);
};
ProductKernels product_kernels(Level level, DType x);

// A product of `rows` rows without its memory for packed activations, rows * words floats.
Product product_of(const WeightLayout& layout, const Tensor& x, const Tensor& out, const Tensor& weights,
                   const Tensor& scales, const Tiling& tiling);

}  // namespace linattn::cpu
