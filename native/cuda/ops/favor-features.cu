// FAVOR+ features. A running maximum takes three kernels: of each row, along each sequence (a block for a sequence and
// head), and the features. Where the product is given, a warp takes each head's vector.
#include <algorithm>
#include <type_traits>

#include "cuda/device/sequences.cuh"
#include "cuda/device/warp.cuh"
#include "cuda/ops/favor-features.cuh"

namespace linattn::cuda {
namespace {

using favor::Favor;

constexpr int kWarpsOfBlock = 4;
constexpr int kSpreadWarps = 16;  // of a long sequence

template <class T>
__device__ __forceinline__ float half_norm(const Favor<T>& a, int64_t row, int lane) {
  const T* const values = a.row(row);
  float squares = 0;
  for (int d = lane; d < a.size; d += kWarp) {
    const float y = as_float(values[d]) * a.scale;
    squares = fmaf(y, y, squares);
  }
  return 0.5f * warp_sum(squares);
}

template <class T>
__device__ __forceinline__ float own_peak(const Favor<T>& a, int64_t row, int lane, float norm) {
  const float* const u = a.projected + row * a.directions;
  float top = -INFINITY;
  for (int i = lane; i < a.directions; i += kWarp) top = fmaxf(top, a.exponent_size(u[i]));
  return a.own_peak(warp_max(top), norm);
}

__device__ __forceinline__ int64_t own_row() {
  return static_cast<int64_t>(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarp;
}

template <class T>
__global__ void __launch_bounds__(kWarpsOfBlock* kWarp) find_peaks(Favor<T> a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = own_row();
  wait_for_inputs();
  let_next_begin();
  if (row >= a.rows) return;
  const float peak = own_peak(a, row, lane, half_norm(a, row, lane));
  if (lane == 0) a.peak[row] = peak;
}

struct Peaks {
  float *peak, *log_decay, *key_max;
  const float* decay;  // or null
  int64_t slot_stride, decay_stride;
  int slots, heads;
  bool running;
  SequencesView sequences;
  Fault* fault;
};

// Each warp takes as many neighbouring tokens: first their maximum, then the maximum up to each of them.
__global__ void __launch_bounds__(kSpreadWarps* kWarp) spread_peaks(Peaks a) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int n = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  __shared__ float tops[kSpreadWarps];
  wait_for_inputs();
  let_next_begin();
  const int begin = a.sequences.offsets[n], end = a.sequences.offsets[n + 1];
  if (begin < 0 || end < begin || end > a.sequences.tokens) {
    if (threadIdx.x == 0) report(a.fault, FaultKind::kOffsets, FaultName::kRows, n, end, begin, a.sequences.tokens);
    return;
  }
  const auto slot_of = [&](FaultName name, const int32_t* list) {
    return a.key_max ? checked_slot(a.fault, name, list, n, a.slots) : -1;
  };
  const int read = slot_of(FaultName::kReadSlots, a.sequences.read_slots);
  float top = read >= 0 ? a.key_max[read * a.slot_stride + head] : -INFINITY;
  const auto at = [&](int t) { return static_cast<int64_t>(t) * a.heads + head; };
  const int share = static_cast<int>(ceil_div(end - begin, warps * kWarp)) * kWarp;
  const int own_begin = min(begin + warp * share, end), own_end = min(own_begin + share, end);
  float own_top = -INFINITY;
#pragma unroll 4
  for (int t = own_begin + lane; t < own_end; t += kWarp) own_top = fmaxf(own_top, a.peak[at(t)]);
  own_top = warp_max(own_top);
  if (lane == 0) tops[warp] = own_top;
  __syncthreads();
  for (int other = 0; other < (a.running ? warp : warps); other++) top = fmaxf(top, tops[other]);
  if (!a.running) {
    for (int t = own_begin + lane; t < own_end; t += kWarp) a.peak[at(t)] = top;
    return;
  }
  for (int first = own_begin; first < own_end; first += kWarp) {
    const int t = first + lane;
    float through = fmaxf(top, t < own_end ? a.peak[at(t)] : -INFINITY);
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      through = fmaxf(through, __shfl_up_sync(kFullMask, through, offset));
    }
    const float earlier = __shfl_up_sync(kFullMask, through, 1);
    const float before = lane == 0 ? top : earlier;
    if (t < own_end) {
      a.peak[at(t)] = through;
      const float own = a.decay ? a.decay[t * a.decay_stride + head] : 0.0f;
      a.log_decay[at(t)] = (through == before ? 0.0f : before - through) + own;
    }
    top = __shfl_sync(kFullMask, through, kWarp - 1);
  }
  // The last warp's maximum is the sequence's, though it may have no tokens of its own.
  const int write = slot_of(FaultName::kWriteSlots, a.sequences.write_slots);
  if (warp == warps - 1 && lane == 0 && write >= 0) a.key_max[write * a.slot_stride + head] = top;
}

template <class T>
__global__ void __launch_bounds__(kWarpsOfBlock* kWarp) make_features(Favor<T> a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = own_row();
  wait_for_inputs();
  let_next_begin();
  if (row >= a.rows) return;
  const float* const u = a.projected + row * a.directions;
  T* const out = a.out + row * a.width;
  if (a.kind == FavorKind::kRelu) {
    for (int f = lane; f < a.width; f += kWarp) {
      out[f] = from_float<T>(f < a.directions ? (u[f] < 0 ? 0 : u[f]) + a.eps : 0.0f);
    }
    return;
  }
  const float norm = half_norm(a, row, lane);
  float peak = 0;
  if (a.maximum == FavorMaximum::kToken) {
    peak = own_peak(a, row, lane, norm);
  } else if (a.maximum != FavorMaximum::kNone) {
    peak = a.peak[row];
  }
  const int features = a.kind == FavorKind::kHyperbolic ? 2 * a.directions : a.directions;
  const float ratio = 1.0f / sqrtf(static_cast<float>(features)), shift = norm + peak;
  for (int f = lane; f < a.width; f += kWarp) {
    const float exponent = f < a.directions ? u[f] : f < features ? -u[f - a.directions] : 0.0f;
    out[f] = from_float<T>(f < features ? ratio * (expf(exponent - shift) + a.eps) : 0.0f);
  }
}

}  // namespace

void run(const FavorFeatures& op, Cuda& cuda) {
  check_sequences(cuda, op.sequences, op.key_max ? op.key_max.shape[0] : -1);
  const int64_t heads = op.x.shape[1], rows = op.x.shape[0] * heads;
  const auto blocks = static_cast<unsigned>(ceil_div(rows, kWarpsOfBlock));
  constexpr int kThreads = kWarpsOfBlock * kWarp;
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const Favor<T> favor(op);
    const auto with_product = [&](auto multiply, auto given) {
      if constexpr (std::is_same_v<T, bfloat16>) {
        if (op.weights) return multiply(favor, cuda);
      }
      launch_early(cuda, given, blocks, kThreads, 0, favor);
    };
    const bool running = op.maximum == FavorMaximum::kRunning;
    if (running || op.maximum == FavorMaximum::kSequence) {
      with_product(favor::find_peaks_of_product, find_peaks<T>);
      const Peaks peaks{op.peak.as<float>(),
                        op.log_decay.as<float>(),
                        op.key_max.as<float>(),
                        op.decay.as<const float>(),
                        op.key_max.stride0,
                        op.decay.rank == 1 ? 0 : op.decay.stride0,
                        static_cast<int>(op.key_max ? op.key_max.shape[0] : 0),
                        static_cast<int>(heads),
                        running,
                        view_of(op.sequences),
                        cuda.fault()};
      const int warps = std::min<int>(kSpreadWarps, static_cast<int>(ceil_div(op.sequences.max_tokens, 2 * kWarp)));
      const dim3 each(static_cast<unsigned>(op.sequences.rows), static_cast<unsigned>(heads));
      launch_early(cuda, spread_peaks, each, std::max(warps, 1) * kWarp, 0, peaks);
    }
    with_product(favor::make_features_of_product, make_features<T>);
  });
}

}  // namespace linattn::cuda
