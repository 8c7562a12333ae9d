#include "cuda/device/activate.cuh"
#include "cuda/device/elementwise.cuh"
#include "ops/gated-activation.h"

namespace linattn::cuda {
namespace {

template <class T>
struct GatedActivationBody {
  StridedRows<const T> x, gate, base;  // the last may be absent: 0
  StridedRows<T> out;
  ActivationKind kind;

  template <int N>
  __device__ __forceinline__ void apply(int64_t row, int64_t column) const {
    float values[N], gates[N], from[N] = {};
    load(x.at(row, column), values);
    load(gate.at(row, column), gates);
    if (base.data) load(base.at(row, column), from);
    activate<T>(kind, gates);
#pragma unroll
    for (int i = 0; i < N; i++) values[i] = fmaf(gates[i], values[i] - from[i], from[i]);
    store(out.at(row, column), values);
  }
};

constexpr int kRows = 2;  // of a thread of gate_rows

// Many rows without a base, all of whole pieces: a thread makes the same piece of several rows, whose loads are under
// way together.
template <class T>
__global__ void __launch_bounds__(kElementwiseThreads) gate_rows(GatedActivationBody<T> body, int rows, int pieces) {
  constexpr int N = 16 / sizeof(T);
  using Piece = Pack<T, N>;
  const unsigned at = blockIdx.x * static_cast<unsigned>(kElementwiseThreads) + threadIdx.x;
  const int group = static_cast<int>(at / static_cast<unsigned>(pieces)), first = group * kRows;
  const int column = static_cast<int>(at - static_cast<unsigned>(group) * static_cast<unsigned>(pieces)) * N;
  wait_for_inputs();
  Piece values[kRows], gates[kRows];
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (first + r >= rows) continue;
    values[r] = *reinterpret_cast<const Piece*>(body.x.at(first + r, column));
    gates[r] = *reinterpret_cast<const Piece*>(body.gate.at(first + r, column));
  }
#pragma unroll
  for (int r = 0; r < kRows; r++) {
    if (first + r >= rows) continue;
    float gate[N];
    Piece out;
#pragma unroll
    for (int i = 0; i < N; i++) gate[i] = as_float(gates[r].value[i]);
    activate<T>(body.kind, gate);
#pragma unroll
    for (int i = 0; i < N; i++) out.value[i] = from_float<T>(fmaf(gate[i], as_float(values[r].value[i]), 0.0f));
    *reinterpret_cast<Piece*>(body.out.at(first + r, column)) = out;
  }
}

// Whether gate_rows() has enough to do and can, and then it runs.
template <class T>
bool run_rows(const GatedActivationBody<T>& body, std::initializer_list<Tensor> tensors, Cuda& cuda) {
  constexpr int N = 16 / sizeof(T);
  const Tensor& x = *tensors.begin();
  const int64_t pieces = x.shape[1] / N, all = ceil_div(x.shape[0], int64_t{kRows}) * pieces;
  const bool fit = !body.base.data && x.shape[1] % N == 0 && std::max(x.shape[0], all) <= INT32_MAX &&
                   all >= int64_t{4} * kElementwiseThreads * cuda.properties.multiprocessors &&
                   std::all_of(tensors.begin(), tensors.end(), [](const Tensor& t) { return aligned(t, N); });
  if (!fit) return false;
  const auto blocks = static_cast<unsigned>(ceil_div(all, int64_t{kElementwiseThreads}));
  launch_early(cuda, gate_rows<T>, blocks, kElementwiseThreads, 0, body, static_cast<int>(x.shape[0]),
               static_cast<int>(pieces));
  return true;
}

}  // namespace

void run(const GatedActivation& op, Cuda& cuda) {
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    Tensor x = op.x, gate = op.gate;
    if (!gate) {  // a row of x holds both
      x.shape[1] = op.out.shape[1];
      gate = x;
      x.data = op.x.as<T>() + op.out.shape[1];
    }
    const GatedActivationBody<T> body{StridedRows<const T>(x), StridedRows<const T>(gate),
                                      StridedRows<const T>(op.base), StridedRows<T>(op.out), op.activation};
    if (run_rows(body, {x, gate, op.out}, cuda)) return;
    elementwise<16 / sizeof(T)>(cuda, {x, gate, op.base ? op.base : gate, op.out}, body);
  });
}

}  // namespace linattn::cuda
