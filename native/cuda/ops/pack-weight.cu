// Rows of a matrix into a packed weight (ops/weight-layout.h).
#include "cuda/device/float.cuh"
#include "cuda/device/launch.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/weight-layout.h"
#include "ops/pack-weight.h"

namespace linattn::cuda {
namespace {

constexpr int kThreads = 256;

struct Rows {
  const void* source;
  int64_t stride, count;  // of the source, in elements; rows
  void* weights;          // the first row to be written
  float* scales;          // of the whole weight
  int64_t first;          // row of the weight
};

// A thread converts a pair.
template <class T, class W>
__global__ void __launch_bounds__(kThreads) pack_floats(Rows rows, WeightLayout layout) {
  const int64_t pairs = layout.padded_depth / 2;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows.count * pairs) return;
  const int64_t row = i / pairs, k = i % pairs * 2;
  const T* from = static_cast<const T*>(rows.source) + row * rows.stride + k;
  const float pair[2] = {as_float(from[0]), k + 1 < layout.depth ? as_float(from[1]) : 0.0f};
  store(static_cast<W*>(rows.weights) + row * layout.padded_depth + k, pair);
}

// The largest absolute value of a group of weights decides its scale: weight = scale * q, q whole in [-127, 127]. NaN
// or infinity makes the scale NaN, so that it is not lost; below 2^-119 all are taken for 0. A warp packs a group.
template <class T>
__global__ void __launch_bounds__(kThreads) pack_int8(Rows rows, WeightLayout layout) {
  const int lane = threadIdx.x % kWarp;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  if (i >= rows.count * layout.groups) return;
  const int64_t row = i / layout.groups, g = i % layout.groups, begin = g * layout.group;
  const int64_t end = begin + layout.group < layout.depth ? begin + layout.group : layout.depth;
  const T* from = static_cast<const T*>(rows.source) + row * rows.stride;

  float top = 0, spoilt = 0;
  for (int64_t k = begin + lane; k < end; k += kWarp) {
    const float value = as_float(from[k]);
    top = fmaxf(top, fabsf(value));
    spoilt += value * 0.0f;
  }
  top = warp_max(top);
  spoilt = warp_sum(spoilt);
  float scale = top / 127.0f, inverse = 127.0f / top;
  if (top < 0x1p-119f) scale = inverse = 0;
  if (!(spoilt == 0)) {
    scale = __int_as_float(0x7fc00000);
    inverse = 0;
  }

  int8_t* to = static_cast<int8_t*>(rows.weights) + row * layout.padded_depth;
  for (int64_t k = begin + lane; k < end; k += kWarp) {
    to[k] = static_cast<int8_t>(__float2int_rn(as_float(from[k]) * inverse));
  }
  if (lane == 0) {
    if (end == layout.depth && end < layout.padded_depth) to[end] = 0;
    rows.scales[layout.scale_index(rows.first + row, g)] = scale;
  }
}

// Launched after a whole kernel: products read weights before they wait for what is in front of them, so these must be
// written for good before anything that comes later begins.
__global__ void settle() {}

unsigned blocks_of(int64_t threads) { return static_cast<unsigned>(ceil_div(threads, kThreads)); }

}  // namespace

void run(const PackWeight& op, Cuda& cuda) {
  const WeightLayout layout(op.dtype, op.source.shape[1], op.group);
  const Rows rows{op.source.data,        op.source.stride0,
                  op.source.shape[0],    op.weights.as<char>() + op.row * layout.row_bytes(),
                  op.scales.as<float>(), op.row};
  if (rows.count == 0) return;
  layout.check(op.weights, op.row + rows.count);
  for_float(op.source.dtype, [&](auto t) {
    using T = decltype(t);
    if (op.dtype == DType::kInt8) {
      launch(cuda, pack_int8<T>, blocks_of(rows.count * layout.groups * kWarp), kThreads, 0, rows, layout);
      return launch(cuda, settle, 1, 1, 0);
    }
    for_float(op.dtype, [&](auto w) {
      const unsigned blocks = blocks_of(rows.count * layout.padded_depth / 2);
      launch(cuda, pack_floats<T, decltype(w)>, blocks, kThreads, 0, rows, layout);
      launch(cuda, settle, 1, 1, 0);
    });
  });
}

}  // namespace linattn::cuda
