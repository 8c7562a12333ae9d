// Feature maps: a warp for each head's vector, which it holds scaled in shared memory while its lanes make the
// features.
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

// Of the upper triangle of size x size, packed by rows: entry p, times sqrt(1/2) on the diagonal.
__device__ __forceinline__ float product_at(const float* y, int size, int p) {
  const int side = 2 * size + 1;
  const auto before = [&](int row) { return row * (side - row) / 2; };
  int i = static_cast<int>((static_cast<float>(side) - sqrtf(static_cast<float>(side * side - 8 * p))) / 2);
  while (i > 0 && before(i) > p) i--;
  while (before(i + 1) <= p) i++;
  const int j = i + p - before(i);
  return i == j ? y[i] * y[i] * 0.70710678f : y[i] * y[j];
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
        value = product_at(y, size, p);
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

}  // namespace

void run(const FeatureMap& op, Cuda& cuda) {
  if (op.out.size() == 0) return;
  const int64_t rows = op.x.shape[0] * op.x.shape[1];
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
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
    const size_t shared = kRowsOfBlock * static_cast<size_t>(op.x.shape[2]) * sizeof(float);
    launch_early(cuda, map_rows<T>, static_cast<unsigned>(ceil_div(rows, kRowsOfBlock)), kRowsOfBlock * kWarp, shared,
                 maps);
  });
}

}  // namespace linattn::cuda
