// What makes the one row of inputs of a product in each of its blocks, with the bits of the op that it stands for. The
// first block stores what that op stores. The first makers() warps of a block call make().
#pragma once
#include "cuda/device/bulk.cuh"
#include "cuda/ops/rms-norm.cuh"
#include "ops/gated-activation.h"

namespace linattn::cuda {

template <class T, NormParts kParts>
struct NormedInputs {
  RmsNormGroups<T> norm;

  // Whether blocks of so many threads serve.
  bool fit(int threads) const {
    const NormGroups& groups = norm.groups;
    const bool one_team = groups.team > kWarp;
    const bool gated = kParts == NormParts::kGateAfter;
    return gated == static_cast<bool>(norm.gate.data) && !(gated && norm.residual.data) &&
           (!gated || norm.gate_order == GateOrder::kAfter) && norm.whole() && groups.held == 1 &&
           groups.count == groups.per_row &&
           (one_team ? groups.per_row == 1 && groups.team <= threads : groups.per_row <= threads / groups.team);
  }

  __device__ __forceinline__ OwnGroup own() const {
    const NormGroups& groups = norm.groups;
    const int thread = static_cast<int>(threadIdx.x);
    OwnGroup own;
    // Of several teams each has 2^n threads.
    own.in_row = groups.team > kWarp ? 0 : thread >> (31 - __clz(groups.team));
    own.place = groups.team > kWarp ? thread : thread & (groups.team - 1);
    own.column = static_cast<int64_t>(own.in_row) * groups.size;
    own.pieces = own.in_row < groups.per_row ? groups.pieces : 0;
    return own;
  }

  // A kernel in front may write the norm's weights, so that they are fetched and not yet read.
  __device__ __forceinline__ void prepare() const { prefetch_weights<T, 1>(norm, own()); }

  __device__ __forceinline__ int makers() const {
    const NormGroups& groups = norm.groups;
    return groups.team > kWarp ? groups.team / kWarp : (groups.per_row * groups.team + kWarp - 1) / kWarp;
  }

  // `shared`: kWarp floats. `met`: has as many arrivals as there are makers, for one phase.
  __device__ __forceinline__ void make(T* row, float* shared, ByteBarrier& met) const {
    const bool stores = blockIdx.x == 0;
    const OwnGroup group = own();
    const auto total = [&](float x) {
      const int team = norm.groups.team, lane = static_cast<int>(threadIdx.x % kWarp);
      if (team <= kWarp) return team_sum(x, team, nullptr);
      x = warp_sum(x);
      if (lane == 0) shared[threadIdx.x / kWarp] = x;
      met.arrive();
      met.wait(0);
      return warp_sum(lane < team / kWarp ? shared[lane] : 0.0f);
    };
    normalise_by<1, true, kParts>(
        norm, group, total,
        [&](int piece, const Pack<T, kPiece<T>>& out, int) {
          const int64_t at = group.column + piece * kPiece<T>;
          *reinterpret_cast<Pack<T, kPiece<T>>*>(row + at) = out;
          if (stores) *reinterpret_cast<Pack<T, kPiece<T>>*>(norm.out.at(0, at)) = out;
        },
        stores);
  }
};

// A gate of silu or sigmoid.
template <class T>
struct GatedInputs {
  StridedRows<const T> x, gate;
  StridedRows<T> out;
  ActivationKind kind;
  int width;
  bool serves;

  explicit GatedInputs(const GatedActivation& op)
      : x(op.x),
        gate(op.gate ? op.gate : op.x),
        out(op.out),
        kind(op.activation),
        width(static_cast<int>(op.out.shape[1])),
        serves(!op.base && (kind == ActivationKind::kSilu || kind == ActivationKind::kSigmoid) &&
               width % kPiece<T> == 0 && aligned(op.x, kPiece<T>) && (!op.gate || aligned(op.gate, kPiece<T>)) &&
               aligned(op.out, kPiece<T>)) {
    if (!op.gate) x.data += width;  // a row of op.x holds both
  }
  bool fit(int) const { return serves; }

  __device__ __forceinline__ void prepare() const {}

  __device__ __forceinline__ int makers() const {
    constexpr int kValues = kPiece<T> * kWarp;  // of a warp
    return min(static_cast<int>(blockDim.x) / kWarp, (width + kValues - 1) / kValues);
  }

  __device__ __forceinline__ void make(T* row, float*, ByteBarrier&) const {
    constexpr int N = kPiece<T>;
#pragma unroll 1
    for (int at = static_cast<int>(threadIdx.x) * N; at < width; at += static_cast<int>(blockDim.x) * N) {
      float values[N], gates[N];
      load(x.at(0, at), values);
      load(gate.at(0, at), gates);
#pragma unroll
      for (int i = 0; i < N; i++) values[i] = fmaf(gate_of<T>(kind, gates[i]), values[i], 0.0f);
      store(row + at, values);
      if (blockIdx.x == 0) store(out.at(0, at), values);
    }
  }
};

}  // namespace linattn::cuda
