// Products of many rows: both operands in one type, taken as they lie in memory where they can be. What must be
// converted of the weights, or summed in float32 first, is a slice of the outputs at a time, so that it takes little
// memory.
#include <algorithm>

#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/cublaslt.h"
#include "cuda/ops/float-parts.cuh"
#include "cuda/ops/matmul.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWide = 4;
constexpr int64_t kSliceBytes = int64_t{128} << 20;
constexpr int64_t kLeastSlice = 128;

__device__ __forceinline__ float value_of(int8_t x) { return static_cast<float>(x); }
template <class W>
__device__ __forceinline__ float value_of(W x) {
  return as_float(x);
}

// A block a row, zeros up to `stride`. Three planes for a float32 that becomes the sum of three bfloat16. kWidth values
// at a time, of which rows then are multiples.
template <class X, class P, int kTerms, int kWidth>
__global__ void __launch_bounds__(kThreads)
    convert_inputs(const X* x, int64_t x_stride, int64_t depth, P* to, int64_t stride) {
  const X* row = x + blockIdx.x * x_stride;
  for (int64_t k = static_cast<int64_t>(threadIdx.x) * kWidth; k < stride; k += kThreads * kWidth) {
    float left[kWidth] = {};
    if (k < depth) load(row + k, left);
    P* place = to + blockIdx.x * stride + k;
#pragma unroll
    for (int term = 0; term < kTerms; term++) {
      float part[kWidth];
#pragma unroll
      for (int i = 0; i < kWidth; i++) {
        part[i] = kTerms == 1 ? left[i] : leading_part(left[i]);
        left[i] = rest_of(left[i], part[i]);
      }
      store(place + term * gridDim.x * stride, part);
    }
  }
}

// A block a row of weights, zeros up to `stride`. The scales of a row with several groups are taken relative to the
// largest, which goes to row_scales, so that what they leave fits any type.
template <class W, class P, int kWidth>
__global__ void __launch_bounds__(kThreads)
    expand_weights(const W* weights, const float* scales, const __grid_constant__ WeightLayout layout, int64_t first,
                   P* to, int64_t stride, float* row_scales) {
  __shared__ float shared[kWarp];
  const int64_t n = first + blockIdx.x;
  float largest = 0;
  if (scales) {
    for (int64_t g = threadIdx.x; g < layout.groups; g += kThreads) {
      largest = fmaxf(largest, scales[layout.scale_index(n, g)]);
    }
    largest = block_max(largest, shared);
    if (threadIdx.x == 0) row_scales[blockIdx.x] = largest;
  }
  for (int64_t k = static_cast<int64_t>(threadIdx.x) * kWidth; k < stride; k += kThreads * kWidth) {
    float values[kWidth] = {};
    if (k < layout.depth) {
      const auto pack = *reinterpret_cast<const Pack<W, kWidth>*>(weights + n * layout.padded_depth + k);
      float scale = 1;
      if (scales) {
        scale = scales[layout.scale_index(n, k / layout.group)];
        scale = scale == largest ? 1.0f : scale / largest;
      }
#pragma unroll
      for (int i = 0; i < kWidth; i++) values[i] = value_of(pack.value[i]) * scale;
    }
    store(to + blockIdx.x * stride + k, values);
  }
}

// out = sums * scales + bias, in place too.
template <class T>
__global__ void __launch_bounds__(kThreads) finish(const float* sums, int64_t sums_stride, int64_t outputs,
                                                   const float* scales, const float* bias, T* out, int64_t out_stride) {
  const int64_t blocks = ceil_div(outputs, kThreads), row = blockIdx.x / blocks;
  const int64_t n = blockIdx.x % blocks * kThreads + threadIdx.x;
  if (n >= outputs) return;
  float sum = sums[row * sums_stride + n];
  if (scales) sum *= scales[n];
  if (bias) sum += bias[n];
  out[row * out_stride + n] = from_float<T>(sum);
}

// How a product is taken: the type of its operands, and how many of them an activation is the sum of.
struct Operands {
  DType type;
  int terms;
};

Operands operands_of(const Product& p) {
  switch (p.layout.dtype) {
    case DType::kBFloat16:
      return {DType::kBFloat16, 1};
    case DType::kFloat16:
      return {p.x_type == DType::kFloat16 ? DType::kFloat16 : DType::kFloat32, 1};
    case DType::kInt8:
      if (p.x_type != DType::kFloat32) return {p.x_type, 1};
      // Whole numbers are exact as bfloat16; what scales of groups make of them is not.
      return p.layout.groups == 1 ? Operands{DType::kBFloat16, 3} : Operands{DType::kFloat32, 1};
    default:
      return {DType::kFloat32, 1};
  }
}

template <class X, class P, int kTerms>
void launch_convert(const Product& p, void* to, int64_t stride, Cuda& cuda) {
  const bool wide =
      p.depth % kWide == 0 && p.x_stride % kWide == 0 && reinterpret_cast<uintptr_t>(p.x) % (kWide * sizeof(X)) == 0;
  const auto kernel = wide ? convert_inputs<X, P, kTerms, kWide> : convert_inputs<X, P, kTerms, 1>;
  launch(cuda, kernel, static_cast<unsigned>(p.rows), kThreads, 0, static_cast<const X*>(p.x), p.x_stride, p.depth,
         static_cast<P*>(to), stride);
}

void convert(const Product& p, const Operands& operands, void* to, int64_t stride, Cuda& cuda) {
  if (operands.terms == 3) return launch_convert<float, bfloat16, 3>(p, to, stride, cuda);
  if (operands.type == DType::kFloat16) return launch_convert<float16, float16, 1>(p, to, stride, cuda);
  for_float(p.x_type, [&](auto x) {
    using X = decltype(x);
    if (operands.type == DType::kBFloat16) return launch_convert<X, bfloat16, 1>(p, to, stride, cuda);
    launch_convert<X, float, 1>(p, to, stride, cuda);
  });
}

template <class W, class P>
void launch_expand(const Product& p, int64_t first, int64_t count, void* to, int64_t stride, float* row_scales,
                   Cuda& cuda) {
  const auto kernel = p.depth % kWide == 0 ? expand_weights<W, P, kWide> : expand_weights<W, P, 1>;
  launch(cuda, kernel, static_cast<unsigned>(count), kThreads, 0, static_cast<const W*>(p.weights),
         p.layout.groups > 1 ? p.scales : nullptr, p.layout, first, static_cast<P*>(to), stride, row_scales);
}

void expand(const Product& p, DType type, int64_t first, int64_t count, void* to, int64_t stride, float* row_scales,
            Cuda& cuda) {
  const auto as = [&](auto w, auto operand) {
    launch_expand<decltype(w), decltype(operand)>(p, first, count, to, stride, row_scales, cuda);
  };
  switch (p.layout.dtype) {
    case DType::kInt8:
      return for_float(type, [&](auto operand) { as(int8_t{}, operand); });
    case DType::kBFloat16:
      return as(bfloat16{}, bfloat16{});
    case DType::kFloat16:
      return type == DType::kFloat16 ? as(float16{}, float16{}) : as(float16{}, float{});
    default:
      return as(float{}, float{});
  }
}

bool aligned(const void* p, int64_t row_bytes) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && row_bytes % 16 == 0;
}

}  // namespace

void multiply_many_rows(const Product& p, CublasLt* lt, Cuda& cuda) {
  const Operands operands = operands_of(p);
  const auto bytes = static_cast<int64_t>(dtype_bytes(operands.type));
  const auto out_bytes = static_cast<int64_t>(dtype_bytes(p.x_type));
  const int64_t width = 16 / bytes, stride = ceil_div(p.depth, width) * width;

  MatrixProduct product{operands.type,         p.rows,   0,     p.depth,      p.x,  p.x_stride, p.weights,
                        p.layout.padded_depth, p.x_type, p.out, p.out_stride, false};
  if (p.x_type != operands.type || p.depth % width != 0 || !aligned(p.x, p.x_stride * bytes)) {
    void* to = cuda.scratch(static_cast<size_t>(operands.terms * p.rows * stride * bytes));
    convert(p, operands, to, stride, cuda);
    product.x = to;
    product.x_stride = stride;
  }

  const bool expanded =
      p.layout.dtype != operands.type || !aligned(p.weights, p.layout.row_bytes()) || p.depth % width != 0;
  const bool finished = p.scales || p.bias || (p.x_type != DType::kFloat32 && p.x_type != operands.type);
  const bool summed_apart = finished && p.x_type != DType::kFloat32;
  const int64_t bytes_of_output = (expanded ? stride * bytes : 0) + (summed_apart ? p.rows * 4 : 0);
  const int64_t fitting = bytes_of_output == 0 ? p.outputs : kSliceBytes / bytes_of_output / kLeastSlice * kLeastSlice;
  const int64_t slice = std::min(p.outputs, std::max(fitting, kLeastSlice));
  char* weights = expanded ? cuda.scratch_of<char>(static_cast<size_t>(slice * stride * bytes)) : nullptr;
  float* row_scales = p.layout.groups > 1 ? cuda.scratch_of<float>(static_cast<size_t>(slice)) : nullptr;
  float* sums = summed_apart ? cuda.scratch_of<float>(static_cast<size_t>(p.rows * slice)) : nullptr;
  void* workspace = lt ? cuda.scratch(kCublasLtWorkspaceBytes) : nullptr;
  for (int64_t first = 0; first < p.outputs; first += slice) {
    product.outputs = std::min(slice, p.outputs - first);
    product.weights = static_cast<const char*>(p.weights) + first * p.layout.row_bytes();
    if (expanded) {
      expand(p, operands.type, first, product.outputs, weights, stride, row_scales, cuda);
      product.weights = weights;
      product.weights_stride = stride;
    }
    void* out = static_cast<char*>(p.out) + first * out_bytes;
    product.sums = out;
    if (summed_apart) {
      product.sums_type = DType::kFloat32;
      product.sums = sums;
      product.sums_stride = slice;
    }
    for (int term = operands.terms - 1; term >= 0; term--) {
      MatrixProduct part = product;
      part.x = static_cast<const char*>(product.x) + term * p.rows * stride * bytes;
      part.accumulate = term < operands.terms - 1;
      if (!lt || !multiply(*lt, part, workspace, cuda)) multiply_tiles(part, cuda);
    }
    if (!finished) continue;
    for_float(p.x_type, [&](auto t) {
      using T = decltype(t);
      const auto blocks = static_cast<unsigned>(p.rows * ceil_div(product.outputs, kThreads));
      const float* scales = row_scales ? row_scales : p.scales ? p.scales + first : nullptr;
      launch(cuda, finish<T>, blocks, kThreads, 0, static_cast<const float*>(product.sums), product.sums_stride,
             product.outputs, scales, p.bias ? p.bias + first : nullptr, static_cast<T*>(out), p.out_stride);
    });
  }
}

}  // namespace linattn::cuda
