// Gates of an mLSTM: a warp for a sequence and head. A lane for each of 32 tokens computes its gates; the maximum then
// goes through them one by one, so that any split of a sequence gives the same bits. Logarithms add up along a
// sequence: the functions are those of double, rounded once.
#include "cuda/device/elementwise.cuh"
#include "cuda/device/sequences.cuh"
#include "cuda/device/warp.cuh"
#include "ops/mlstm-gates.h"

namespace linattn::cuda {
namespace {

constexpr int kWarpsOfBlock = 4;

__device__ __forceinline__ float rounded_exp(float x) { return static_cast<float>(exp(static_cast<double>(x))); }
__device__ __forceinline__ float log_sigmoid(double x) {
  return static_cast<float>((x < 0 ? x : 0) - log1p(exp(-fabs(x))));
}

template <class T>
struct Gates {
  StridedRows<const T> x;
  const float* bias;
  float *maximum, *g, *key_scale, *floor;
  int64_t slot_stride;
  int slots, heads;
  float cap, scale, start;
  bool exponential;
  SequencesView sequences;
  Fault* fault;

  __device__ __forceinline__ float input(int t, int column) const {
    const float value = as_float(*x.at(t, column)) + bias[column];
    return cap > 0 ? static_cast<float>(cap * tanh(static_cast<double>(value) / cap)) : value;
  }
};

template <class T>
__global__ void __launch_bounds__(kWarpsOfBlock* kWarp) make_gates(Gates<T> a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarp;
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
    return a.maximum ? checked_slot(a.fault, name, list, n, a.slots) : -1;
  };
  const int read = slot_of(FaultName::kReadSlots, a.sequences.read_slots);
  float m = read >= 0 ? a.maximum[read * a.slot_stride + head] : a.start;
  for (int first = begin; first < end; first += kWarp) {
    const int t = first + lane, count = min(kWarp, end - first);
    float log_input = 0, log_forget = 0, before = 0, after = 0;
    if (t < end) {
      log_input = a.input(t, head);
      const float forget = a.input(t, a.heads + head);
      log_forget = a.exponential ? forget : log_sigmoid(forget);
    }
    for (int i = 0; i < count; i++) {
      const float kept = __shfl_sync(kFullMask, log_forget, i) + m;
      const float own = __shfl_sync(kFullMask, log_input, i);
      m = kept < own ? own : kept;
      if (lane == i) before = kept, after = m;
    }
    if (t >= end) continue;
    const int64_t at = static_cast<int64_t>(t) * a.heads + head;
    a.g[at] = before - after;
    a.key_scale[at] = a.scale * rounded_exp(log_input - after);
    a.floor[at] = rounded_exp(-after);
  }
  const int write = slot_of(FaultName::kWriteSlots, a.sequences.write_slots);
  if (lane == 0 && write >= 0) a.maximum[write * a.slot_stride + head] = m;
}

}  // namespace

void run(const MlstmGates& op, Cuda& cuda) {
  check_sequences(cuda, op.sequences, op.maximum ? op.maximum.shape[0] : -1);
  const int64_t heads = op.g.shape[1];
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const Gates<T> gates{StridedRows<const T>(op.x),
                         op.bias.as<const float>(),
                         op.maximum.as<float>(),
                         op.g.as<float>(),
                         op.key_scale.as<float>(),
                         op.floor.as<float>(),
                         op.maximum.stride0,
                         static_cast<int>(op.maximum ? op.maximum.shape[0] : 0),
                         static_cast<int>(heads),
                         op.cap,
                         op.scale,
                         op.start(),
                         op.exponential,
                         view_of(op.sequences),
                         cuda.fault()};
    const int64_t blocks = ceil_div(op.sequences.rows * heads, kWarpsOfBlock);
    launch_early(cuda, make_gates<T>, static_cast<unsigned>(blocks), kWarpsOfBlock * kWarp, 0, gates);
  });
}

}  // namespace linattn::cuda
