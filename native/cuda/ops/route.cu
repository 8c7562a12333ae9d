// A warp a row: each lane holds every 32nd expert, and the best of all is taken k times.
#include "cuda/device/activate.cuh"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/warp.cuh"
#include "ops/route.h"

namespace linattn::cuda {
namespace {

constexpr int kWarps = 4;

template <class T>
struct Routes {
  StridedRows<const T> logits;
  const float* bias;  // may be null
  StridedRows<int32_t> ids;
  StridedRows<float> weights;
  int rows, experts, count;
  RouteScore score;
  bool renormalise;
  float scale;
};

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) route(Routes<T> a) {
  const int row = static_cast<int>(blockIdx.x) * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  wait_for_inputs();
  let_next_begin();
  if (row >= a.rows) return;
  const T* const logits = a.logits.at(row, 0);
  int32_t* const ids = a.ids.at(row, 0);
  float* const weights = a.weights.at(row, 0);
  const bool softmax = a.score == RouteScore::kSoftmax;
  float top = -INFINITY, total = 0;
  if (softmax) {
    for (int e = lane; e < a.experts; e += kWarp) top = fmaxf(top, as_float(logits[e]));
    top = warp_max(top);
    for (int e = lane; e < a.experts; e += kWarp) total += expf(as_float(logits[e]) - top);
    total = warp_sum(total);
  }
  const auto count_of = [&](int e) {
    const float x = as_float(logits[e]);
    return softmax ? expf(x - top) / total : sigmoid(x);
  };
  // What experts are ranked by; NaN comes last.
  const auto rank_of = [&](int e) {
    const float rank = a.bias ? count_of(e) + a.bias[e] : softmax ? as_float(logits[e]) : count_of(e);
    return isnan(rank) ? -INFINITY : rank;
  };
  float sum = 0;
  for (int j = 0; j < a.count; j++) {
    float best = -INFINITY;
    int place = a.experts;
    for (int e = lane; e < a.experts; e += kWarp) {
      bool taken = false;
      for (int i = 0; i < j; i++) taken = taken || ids[i] == e;
      const float rank = rank_of(e);
      if (!taken && (place == a.experts || rank > best)) {
        best = rank;
        place = e;
      }
    }
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(kFullMask, best, offset);
      const int where = __shfl_xor_sync(kFullMask, place, offset);
      const bool better = where < a.experts && (place == a.experts || other > best || (other == best && where < place));
      best = better ? other : best;
      place = better ? where : place;
    }
    const float count = count_of(place);
    sum += count;
    if (lane == 0) {
      ids[j] = place;
      weights[j] = count;
    }
    __syncwarp();
  }
  for (int j = lane; j < a.count; j += kWarp) weights[j] *= a.renormalise ? a.scale / sum : a.scale;
}

}  // namespace

void run(const Route& op, Cuda& cuda) {
  if (op.ids.size() == 0) return;
  for_float(op.logits.dtype, [&](auto t) {
    using T = decltype(t);
    const Routes<T> arguments{StridedRows<const T>(op.logits),
                              op.bias.as<const float>(),
                              StridedRows<int32_t>(op.ids),
                              StridedRows<float>(op.weights),
                              static_cast<int>(op.logits.shape[0]),
                              static_cast<int>(op.logits.shape[1]),
                              static_cast<int>(op.ids.shape[1]),
                              op.score,
                              op.renormalise,
                              op.scale};
    launch_early(cuda, route<T>, static_cast<unsigned>(ceil_div(op.logits.shape[0], kWarps)), kWarps * kWarp, 0,
                 arguments);
  });
}

}  // namespace linattn::cuda
