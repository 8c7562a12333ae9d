// FAVOR+ features: a warp for each head's vector. A running maximum takes three kernels: of each row, along each
// sequence (a warp for a sequence and head), and the features.
#include "cuda/device/elementwise.cuh"
#include "cuda/device/sequences.cuh"
#include "cuda/device/warp.cuh"
#include "ops/favor-features.h"

namespace linattn::cuda {
namespace {

constexpr int kWarpsOfBlock = 4;

template <class T>
struct Favor {
  StridedRows<const T> x;
  const float* projected;
  T* out;
  float *peak, *log_decay;
  int64_t rows;
  int heads, size, directions, width;
  FavorKind kind;
  FavorMaximum maximum;
  float scale, eps;

  __device__ __forceinline__ float half_norm(int64_t row, int lane) const {
    const T* const values = x.at(row / heads, row % heads * size);
    float squares = 0;
    for (int d = lane; d < size; d += kWarp) {
      const float y = as_float(values[d]) * scale;
      squares = fmaf(y, y, squares);
    }
    return 0.5f * warp_sum(squares);
  }

  // The exponent that a maximum subtracts from a row on its own account.
  __device__ __forceinline__ float own_peak(int64_t row, int lane, float norm) const {
    const float* const u = projected + row * directions;
    float top = -INFINITY;
    for (int i = lane; i < directions; i += kWarp)
      top = fmaxf(top, kind == FavorKind::kHyperbolic ? fabsf(u[i]) : u[i]);
    top = warp_max(top);
    return eps > 0 ? top : top - norm;
  }
};

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
  const float peak = a.own_peak(row, lane, a.half_norm(row, lane));
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

__global__ void __launch_bounds__(kWarpsOfBlock* kWarp) spread_peaks(Peaks a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = own_row();
  wait_for_inputs();
  let_next_begin();
  if (row >= static_cast<int64_t>(a.sequences.rows) * a.heads) return;
  const int n = static_cast<int>(row / a.heads), head = static_cast<int>(row % a.heads);
  const int begin = a.sequences.offsets[n], end = a.sequences.offsets[n + 1];
  if (begin < 0 || end < begin || end > a.sequences.tokens) {
    if (lane == 0) report(a.fault, FaultKind::kOffsets, FaultName::kRows, n, end, begin, a.sequences.tokens);
    return;
  }
  const auto slot_of = [&](FaultName name, const int32_t* list) {
    return a.key_max ? checked_slot(a.fault, name, list, n, a.slots) : -1;
  };
  const int read = slot_of(FaultName::kReadSlots, a.sequences.read_slots);
  float top = read >= 0 ? a.key_max[read * a.slot_stride + head] : -INFINITY;
  const auto at = [&](int t) { return static_cast<int64_t>(t) * a.heads + head; };
  if (!a.running) {
    for (int t = begin + lane; t < end; t += kWarp) top = fmaxf(top, a.peak[at(t)]);
    top = warp_max(top);
    for (int t = begin + lane; t < end; t += kWarp) a.peak[at(t)] = top;
    return;
  }
  for (int first = begin; first < end; first += kWarp) {
    const int t = first + lane;
    float through = fmaxf(top, t < end ? a.peak[at(t)] : -INFINITY);
#pragma unroll
    for (int offset = 1; offset < kWarp; offset *= 2) {
      through = fmaxf(through, __shfl_up_sync(kFullMask, through, offset));
    }
    const float earlier = __shfl_up_sync(kFullMask, through, 1);
    const float before = lane == 0 ? top : earlier;
    if (t < end) {
      a.peak[at(t)] = through;
      const float own = a.decay ? a.decay[t * a.decay_stride + head] : 0.0f;
      a.log_decay[at(t)] = (through == before ? 0.0f : before - through) + own;
    }
    top = __shfl_sync(kFullMask, through, kWarp - 1);
  }
  const int write = slot_of(FaultName::kWriteSlots, a.sequences.write_slots);
  if (lane == 0 && write >= 0) a.key_max[write * a.slot_stride + head] = top;
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
  const float norm = a.half_norm(row, lane);
  float peak = 0;
  if (a.maximum == FavorMaximum::kToken) {
    peak = a.own_peak(row, lane, norm);
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
  const int64_t rows = op.x.shape[0] * op.x.shape[1];
  const auto blocks = [](int64_t warps) { return static_cast<unsigned>(ceil_div(warps, kWarpsOfBlock)); };
  constexpr int kThreads = kWarpsOfBlock * kWarp;
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const Favor<T> favor{StridedRows<const T>(op.x),
                         op.projected.as<const float>(),
                         op.out.as<T>(),
                         op.peak.as<float>(),
                         op.log_decay.as<float>(),
                         rows,
                         static_cast<int>(op.x.shape[1]),
                         static_cast<int>(op.x.shape[2]),
                         static_cast<int>(op.projected.shape[2]),
                         static_cast<int>(op.out.shape[2]),
                         op.kind,
                         op.maximum,
                         op.scale,
                         op.eps};
    const bool running = op.maximum == FavorMaximum::kRunning;
    if (running || op.maximum == FavorMaximum::kSequence) {
      launch_early(cuda, find_peaks<T>, blocks(rows), kThreads, 0, favor);
      const Peaks peaks{op.peak.as<float>(),
                        op.log_decay.as<float>(),
                        op.key_max.as<float>(),
                        op.decay.as<const float>(),
                        op.key_max.stride0,
                        op.decay.rank == 1 ? 0 : op.decay.stride0,
                        static_cast<int>(op.key_max ? op.key_max.shape[0] : 0),
                        static_cast<int>(op.x.shape[1]),
                        running,
                        view_of(op.sequences),
                        cuda.fault()};
      launch_early(cuda, spread_peaks, blocks(op.sequences.rows * op.x.shape[1]), kThreads, 0, peaks);
    }
    launch_early(cuda, make_features<T>, blocks(rows), kThreads, 0, favor);
  });
}

}  // namespace linattn::cuda
