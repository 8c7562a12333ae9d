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
constexpr int kSpreadWarps = 32;  // of a long sequence
constexpr int kSpreadAhead = 8;   // tokens of a lane at a time

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
  if (lane == 0) a.peak_of(row) = peak;
}

struct Peaks {
  float* peak;       // [heads, tokens]
  float* log_decay;  // [tokens, heads]
  float* key_max;
  const float* decay;  // or null
  int64_t slot_stride, decay_stride;
  int slots, heads;
  bool running;
  SequencesView sequences;
  Fault* fault;

  // Of a sequence and head: those of the tokens [begin, end) become the maximum of `top` and all of them, which is
  // returned.
  __device__ __forceinline__ float spread_all(float* own, int begin, int end, float top) const {
    __shared__ float tops[kWarp];
    float highest = -INFINITY;
#pragma unroll 4
    for (int t = begin + static_cast<int>(threadIdx.x); t < end; t += blockDim.x) highest = fmaxf(highest, own[t]);
    top = fmaxf(top, block_max(highest, tops));
    for (int t = begin + static_cast<int>(threadIdx.x); t < end; t += blockDim.x) own[t] = top;
    return top;
  }

  // They become the maximum of `top` and the tokens up to each. A warp takes 32 neighbours kSpreadAhead times: first
  // along each 32, then along those, then along the warps.
  __device__ __forceinline__ float spread_running(float* own, int head, int begin, int end, float top) const {
    __shared__ float tops[kSpreadWarps];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    constexpr int kTokens = kWarp * kSpreadAhead;  // of a warp
    for (; begin < end; begin += warps * kTokens) {
      const int first = begin + warp * kTokens + lane;
      float through[kSpreadAhead];
#pragma unroll
      for (int i = 0; i < kSpreadAhead; i++) {
        through[i] = first + i * kWarp < end ? own[first + i * kWarp] : -INFINITY;
      }
#pragma unroll
      for (int offset = 1; offset < kWarp; offset *= 2) {
#pragma unroll
        for (int i = 0; i < kSpreadAhead; i++) {
          through[i] = fmaxf(through[i], __shfl_up_sync(kFullMask, through[i], offset));
        }
      }
#pragma unroll
      for (int i = 1; i < kSpreadAhead; i++) {
        through[i] = fmaxf(through[i], __shfl_sync(kFullMask, through[i - 1], kWarp - 1));
      }
      if (lane == kWarp - 1) tops[warp] = through[kSpreadAhead - 1];
      __syncthreads();
      float before = top;  // what is before the token of the lane
      for (int other = 0; other < warps; other++) {
        top = fmaxf(top, tops[other]);
        if (other < warp) before = top;
      }
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kSpreadAhead; i++) {
        const int t = first + i * kWarp;
        through[i] = fmaxf(through[i], before);
        const float earlier = __shfl_up_sync(kFullMask, through[i], 1);
        if (lane > 0) before = earlier;
        if (t < end) {
          const float given = decay ? decay[t * decay_stride + head] : 0.0f;
          own[t] = through[i];
          log_decay[static_cast<int64_t>(t) * heads + head] =
              (through[i] == before ? 0.0f : before - through[i]) + given;
        }
        before = __shfl_sync(kFullMask, through[i], kWarp - 1);
      }
    }
    return top;
  }
};

// Of a sequence and head. Its launch waits for all before it, so that what comes next need not, but for the peaks.
__global__ void __launch_bounds__(kSpreadWarps* kWarp) spread_peaks(const __grid_constant__ Peaks a) {
  const int n = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
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
  float* const own = a.peak + static_cast<int64_t>(head) * a.sequences.tokens;
  top = a.running ? a.spread_running(own, head, begin, end, top) : a.spread_all(own, begin, end, top);
  const int write = slot_of(FaultName::kWriteSlots, a.sequences.write_slots);
  if (threadIdx.x == 0 && write >= 0) a.key_max[write * a.slot_stride + head] = top;
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
  } else if (a.has_peaks()) {
    peak = a.peak_of(row);
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
      const int warps =
          std::min<int>(kSpreadWarps, static_cast<int>(ceil_div(op.sequences.max_tokens, kSpreadAhead * kWarp)));
      const dim3 each(static_cast<unsigned>(op.sequences.rows), static_cast<unsigned>(heads));
      launch(cuda, spread_peaks, each, std::max(warps, 1) * kWarp, 0, peaks);
    }
    with_product(favor::make_features_of_product, make_features<T>);
  });
}

}  // namespace linattn::cuda
