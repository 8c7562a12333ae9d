// Feature maps: value by value, or a warp for each head's vector, which it holds scaled in shared memory while its
// lanes make the features. Which values each feature of a Taylor map multiplies, a block finds once for many vectors.
#include <algorithm>

#include "cuda/device/elementwise.cuh"
#include "cuda/device/warp.cuh"
#include "ops/feature-map.h"

namespace linattn::cuda {
namespace {

constexpr int kRowsOfBlock = 4;

template <class T>
struct Maps {
  StridedRows<const T> x;
  T* out;
  int64_t rows;
  int heads, size, width, order;
  FeatureKind map;
  float scale, floor;
};

__device__ __forceinline__ float map_each(FeatureKind map, float y) {
  switch (map) {
    case FeatureKind::kElu1:
      return y > 0 ? y + 1 : expf(y);
    case FeatureKind::kExp:
      return expf(y);
    case FeatureKind::kRelu:
      return y < 0 ? 0 : y;
    case FeatureKind::kSquaredRelu:
      return y < 0 ? 0 : y * y;
    default:
      return y;
  }
}

// relu([y, -y]) at i.
__device__ __forceinline__ float signed_part(const float* y, int size, int i) {
  return fmaxf(i < size ? y[i] : -y[i - size], 0.0f);
}

constexpr float kHalfRoot = 0.70710678f;

// Entry p of the upper triangle of size x size, packed by rows.
struct Place {
  int row, column;
};
__device__ __forceinline__ Place place_of(int size, int p) {
  const int side = 2 * size + 1;
  const auto before = [&](int row) { return row * (side - row) / 2; };
  int i = static_cast<int>((static_cast<float>(side) - sqrtf(static_cast<float>(side * side - 8 * p))) / 2);
  while (i > 0 && before(i) > p) i--;
  while (before(i + 1) <= p) i++;
  return {i, i + p - before(i)};
}

template <class T>
__global__ void __launch_bounds__(kRowsOfBlock* kWarp) map_rows(Maps<T> a) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock + warp;
  float* const y = dynamic_shared<float>() + warp * a.size;
  wait_for_inputs();
  let_next_begin();
  if (row >= a.rows) return;
  const int size = a.size;
  const T* const x = a.x.at(row / a.heads, row % a.heads * size);
  T* const out = a.out + row * a.width;
  float high = -INFINITY, low = -INFINITY;
  for (int d = lane; d < size; d += kWarp) {
    y[d] = as_float(x[d]) * a.scale;
    high = fmaxf(high, y[d]);
    low = fmaxf(low, -y[d]);
  }
  __syncwarp();

  const bool split = a.map == FeatureKind::kHedgehogSplit, joint = a.map == FeatureKind::kHedgehogJoint;
  if (split || joint || a.map == FeatureKind::kSoftmax) {
    high = warp_max(high);
    low = warp_max(low);
    if (joint) high = low = fmaxf(high, low);
    const float factor = joint ? 2.0f : 1.0f;
    float above = 0, below = 0;
    for (int d = lane; d < size; d += kWarp) {
      above += expf(factor * (y[d] - high));
      below += expf(factor * (-y[d] - low));
    }
    above = warp_sum(above);
    below = warp_sum(below);
    if (joint) above = below = above + below;
    for (int f = lane; f < a.width; f += kWarp) {
      float value = 0;
      if (f < size) {
        value = fmaxf(expf(factor * (y[f] - high)) / above, a.floor);
      } else if (f < 2 * size && (split || joint)) {
        value = fmaxf(expf(factor * (-y[f - size] - low)) / below, a.floor);
      }
      out[f] = from_float<T>(value);
    }
    return;
  }

  for (int f = lane; f < a.width; f += kWarp) {
    float value = 0;
    if (a.map == FeatureKind::kTaylor) {
      const int p = f - 1 - size;
      if (p < 0) {
        value = f == 0 ? 1.0f : y[f - 1];
      } else if (p < size * (size + 1) / 2) {
        const Place at = place_of(size, p);
        value = y[at.row] * y[at.column] * (at.row == at.column ? kHalfRoot : 1.0f);
      }
    } else if (a.map == FeatureKind::kDpfp) {
      const int i = f % (2 * size), j = f / (2 * size) + 1;
      if (j <= a.order) {
        value = signed_part(y, size, i) * signed_part(y, size, (i - j + 2 * size) % (2 * size));
      }
    } else if (f < size) {
      value = map_each(a.map, y[f]);
    }
    out[f] = from_float<T>(value);
  }
}

// Where each value has one feature, and nothing fills up.
template <class T>
struct EachValue {
  StridedRows<const T> x;
  StridedRows<T> out;
  FeatureKind map;
  float scale;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float values[N];
    load(x.at(row, column), values);
#pragma unroll
    for (float& value : values) value = map_each(map, value * scale);
    store(out.at(row, column), values);
  }
};

bool is_each_value(const FeatureMap& op) {
  const bool each = op.map == FeatureKind::kIdentity || op.map == FeatureKind::kElu1 || op.map == FeatureKind::kExp ||
                    op.map == FeatureKind::kRelu || op.map == FeatureKind::kSquaredRelu;
  return each && op.out.shape[2] == op.x.shape[2];
}

// The values that a Taylor feature multiplies: those of the vector, then 1 and 0; `half` for a square.
struct TaylorTerm {
  uint16_t i, j;
  bool half;
};
constexpr int kTaylorThreads = 256;
constexpr int kTaylorMost = 4096;  // features

template <class T>
__global__ void __launch_bounds__(kTaylorThreads) taylor_rows(Maps<T> a) {
  auto* const terms = dynamic_shared<TaylorTerm>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, size = a.size;
  float* const y = reinterpret_cast<float*>(terms + a.width) + warp * (size + 2);
  for (int f = static_cast<int>(threadIdx.x); f < a.width; f += kTaylorThreads) {
    const int p = f - 1 - size;
    const auto one = static_cast<uint16_t>(size), zero = static_cast<uint16_t>(size + 1);
    TaylorTerm term{zero, zero, false};
    if (p < 0) {
      term = {f == 0 ? one : static_cast<uint16_t>(f - 1), one, false};
    } else if (p < size * (size + 1) / 2) {
      const Place at = place_of(size, p);
      term = {static_cast<uint16_t>(at.row), static_cast<uint16_t>(at.column), at.row == at.column};
    }
    terms[f] = term;
  }
  if (lane < 2) y[size + lane] = lane == 0 ? 1.0f : 0.0f;
  wait_for_inputs();
  let_next_begin();
  __syncthreads();
  const int64_t step = int64_t{gridDim.x} * (kTaylorThreads / kWarp);
  for (int64_t row = int64_t{blockIdx.x} * (kTaylorThreads / kWarp) + warp; row < a.rows; row += step) {
    const T* const x = a.x.at(row / a.heads, row % a.heads * size);
    T* const out = a.out + row * a.width;
    for (int d = lane; d < size; d += kWarp) y[d] = as_float(x[d]) * a.scale;
    __syncwarp();
    for (int f = 2 * lane; f < a.width; f += 2 * kWarp) {
      float two[2];
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const TaylorTerm term = terms[f + e];
        two[e] = y[term.i] * y[term.j] * (term.half ? kHalfRoot : 1.0f);
      }
      store(out + f, two);
    }
    __syncwarp();
  }
}

}  // namespace

void run(const FeatureMap& op, Cuda& cuda) {
  if (op.out.size() == 0) return;
  const int64_t rows = op.x.shape[0] * op.x.shape[1];
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    if (is_each_value(op)) {
      const EachValue<T> each{StridedRows<const T>(op.x), StridedRows<T>(op.out), op.map, op.scale};
      return elementwise<16 / sizeof(T)>(cuda, {op.x, op.out}, each);
    }
    const Maps<T> maps{StridedRows<const T>(op.x),
                       op.out.as<T>(),
                       rows,
                       static_cast<int>(op.x.shape[1]),
                       static_cast<int>(op.x.shape[2]),
                       static_cast<int>(op.out.shape[2]),
                       op.order,
                       op.map,
                       op.scale,
                       op.floor};
    if (op.map == FeatureKind::kTaylor && maps.width <= kTaylorMost) {
      constexpr int kRows = kTaylorThreads / kWarp;
      const size_t terms = static_cast<size_t>(maps.width) * sizeof(TaylorTerm);
      const int64_t most = int64_t{8} * cuda.properties.multiprocessors;
      const auto blocks = static_cast<unsigned>(std::min(ceil_div(rows, kRows), most));
      const size_t values = kRows * static_cast<size_t>(maps.size + 2) * sizeof(float);
      return launch_early(cuda, taylor_rows<T>, blocks, kTaylorThreads, terms + values, maps);
    }
    const size_t shared = kRowsOfBlock * static_cast<size_t>(op.x.shape[2]) * sizeof(float);
    launch_early(cuda, map_rows<T>, static_cast<unsigned>(ceil_div(rows, kRowsOfBlock)), kRowsOfBlock * kWarp, shared,
                 maps);
  });
}

}  // namespace linattn::cuda
