// The paths of matmul. Which one a product takes follows from its rows and from what the machine has, unless the op
// names one; a path's sums have an order of their own, so the bits of a row may differ between paths, not within one.
#pragma once
#include "core/op-fields.h"
#include "cuda/cuda.h"
#include "cuda/ops/weight-layout.h"
#include "ops/gated-activation.h"
#include "ops/matmul.h"
#include "ops/rms-norm.h"

namespace linattn::cuda {

class CublasLt;

// out [rows, outputs] = x [rows, depth] weights' (+ bias), as the op has it.
struct Product {
  int64_t rows, outputs, depth;
  WeightLayout layout;
  DType x_type;  // of `out` too
  const void* x;
  int64_t x_stride;
  const void* weights;
  const float* scales;  // may be null, as the bias
  const float* bias;
  void* out;
  int64_t out_stride;
};

// Checks the weights.
Product product_of(const Matmul& op);

// Reads the weights once, at the speed of memory. At most kFewRows rows.
constexpr int64_t kFewRows = 16;
void multiply_few_rows(const Product& product, Cuda& cuda);
// What it is made of, by what the tensor cores multiply exactly: bfloat16 or float16 weights with activations of that
// type, int8 weights, and the others, without tensor cores.
void multiply_few_rows_half(const Product& product, Cuda& cuda);
// The same by the copy engine of sm_90; false, and nothing done, where it does not serve.
bool multiply_few_rows_bulk(const Product& product, Cuda& cuda);
// With the op that makes its one row of inputs, which writes what it writes elsewhere; false, and nothing done, where
// it does not serve.
bool multiply_normed(const RmsNorm& norm, const Product& product, Cuda& cuda);
bool multiply_gated(const GatedActivation& gated, const Product& product, Cuda& cuda);
// A norm, the conversion of its one row of bfloat16 to the float32 inputs of the product, and that; of bfloat16 weights
// of very many outputs.
bool multiply_normed_long(const RmsNorm& norm, float* converted, const Product& product, Cuda& cuda);
// Inputs of an output that a warp sums, before the sums of all are added in order, where the one row is made for the
// product. 0: it is not of operands of one 16-bit type whose parts are equal multiples of 128 inputs.
int inputs_of_warp(const Product& product, const Cuda& cuda);
void multiply_few_rows_int8(const Product& product, Cuda& cuda);
void multiply_few_rows_float(const Product& product, Cuda& cuda);

// As matrix products, for which operands are converted to one type where they are not of it. Without cuBLASLt, whose
// choice of a kernel depends on the rows, a row has the same bits in any company.
void multiply_many_rows(const Product& product, CublasLt* lt, Cuda& cuda);

// sums [rows, outputs] (+)= x [rows, depth] weights [outputs, depth]'. Both operands are of `type`, a float dtype,
// their rows 16-byte aligned and zero from the depth to the next multiple of 16 bytes; the sums are of that type or
// float32.
struct MatrixProduct {
  DType type;
  int64_t rows, outputs, depth;
  const void* x;
  int64_t x_stride;
  const void* weights;
  int64_t weights_stride;
  DType sums_type;
  void* sums;
  int64_t sums_stride;
  bool accumulate;  // float32 sums of 16-bit operands only
};
void multiply_tiles(const MatrixProduct& product, Cuda& cuda);
void multiply_tiles_float(const MatrixProduct& product, Cuda& cuda);  // of float32

}  // namespace linattn::cuda
