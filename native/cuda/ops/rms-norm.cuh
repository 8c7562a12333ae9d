// The RMS norm of groups as device code.
#pragma once
#include "cuda/device/activate.cuh"
#include "cuda/device/prefetch.cuh"
#include "cuda/ops/norm.cuh"
#include "ops/rms-norm.h"

namespace linattn::cuda {

template <class T>
struct RmsNormGroups {
  NormGroups groups;
  StridedRows<const T> x, gate, residual;  // the last two may be absent
  StridedRows<T> out, sum;
  const float* weight;
  int weight_groups;  // groups that the weight covers
  bool aligned, weight_aligned;
  float eps, branch_scale, centre;
  GateOrder gate_order;
  ActivationKind gate_activation;

  bool whole() const { return aligned && weight_aligned && groups.size % kPiece<T> == 0; }
};

template <class T>
__device__ __forceinline__ float gate_of(ActivationKind kind, float x) {
  const float s = sigmoid_as<T>(x);
  return kind == ActivationKind::kSigmoid ? s : x * s;
}

template <class T>
RmsNormGroups<T> rms_norm_groups(const RmsNorm& op) {
  const NormGroups groups(op.x.shape[0], op.x.inner(), op.group_size, kPiece<T>);
  return {groups,
          StridedRows<const T>(op.x),
          StridedRows<const T>(op.gate),
          StridedRows<const T>(op.residual),
          StridedRows<T>(op.out),
          StridedRows<T>(op.sum),
          op.weight.as<const float>(),
          static_cast<int>(op.weight.shape[0] / op.group_size),
          pieces_aligned(groups, kPiece<T>, {op.x, op.gate, op.residual, op.out, op.sum}),
          pieces_aligned(groups, 4, {op.weight}),
          static_cast<float>(op.eps),
          op.branch_scale,
          op.zero_centred ? 1.0f : 0.0f,
          op.gate_order,
          op.gate_activation};
}

// Fetches the weights of a group; before wait_for_inputs().
template <class T, int kHeld>
__device__ __forceinline__ void prefetch_weights(const RmsNormGroups<T>& a, const OwnGroup& own) {
  if (!begins_first()) return;
  const int64_t weights = static_cast<int64_t>(own.in_row % a.weight_groups) * a.groups.size;
  if constexpr (kHeld > 0) {
    for_own_pieces<kHeld>(own, a.groups.team,
                          [&](int piece, int) { prefetch(a.weight + weights + piece * kPiece<T>); });
  }
}

// What a norm has beside x and the weight, where that is known: code for nothing else is there sooner.
enum class NormParts : uint8_t { kAny, kNone, kResidual, kGateAfter };  // kResidual: or none

// Normalises the group `own` of each thread: put(piece, normed values, how many of them count) for its pieces. total(x)
// is the sum of x over the group's threads. kWhole: all pieces are whole and aligned; without the code for others, the
// instructions are there sooner. Not `stores_sum`: another block does.
template <int kHeld, bool kWhole, NormParts kParts, class T, class Total, class Put>
__device__ __forceinline__ void normalise_by(const RmsNormGroups<T>& a, const OwnGroup& own, Total total, Put put,
                                             bool stores_sum) {
  constexpr int N = kPiece<T>, kRoom = std::max(kHeld, 1);
  const int team = a.groups.team, size = a.groups.size;
  const int64_t weights = static_cast<int64_t>(own.in_row % a.weight_groups) * size;
  constexpr bool kAny = kParts == NormParts::kAny;
  const bool gate_first = kAny && a.gate.data && a.gate_order == GateOrder::kBefore;
  const bool gate_last = kParts == NormParts::kGateAfter || (kAny && a.gate.data && a.gate_order == GateOrder::kAfter);
  const bool residual = (kAny || kParts == NormParts::kResidual) && a.residual.data;

  Pack<T, N> inputs[kRoom], gates[kRoom], residuals[kRoom];
  Pack<float, N> weight[kRoom];
  float values[kRoom][N];  // what is normalised
  const auto count_of = [&](int piece) { return kWhole ? N : size - piece * N; };
  const auto load_from = [&](const auto& rows, int piece) {
    return load_piece<N>(rows.at(own.row, own.column) + piece * N, count_of(piece), kWhole || a.aligned);
  };
  const auto load_inputs = [&](int piece, int held) {
    inputs[held] = load_from(a.x, piece);
    if (residual) residuals[held] = load_from(a.residual, piece);
    if (gate_first || gate_last) gates[held] = load_from(a.gate, piece);
  };
  const auto load_weight = [&](int piece, int held) {
    weight[held] = load_piece<N>(a.weight + weights + piece * N, count_of(piece), kWhole || a.weight_aligned);
  };
  const auto set_values = [&](int held) {
#pragma unroll
    for (int i = 0; i < N; i++) {
      values[held][i] = as_float(inputs[held].value[i]);
      if (gate_first) values[held][i] *= gate_of<T>(a.gate_activation, as_float(gates[held].value[i]));
    }
  };

  if constexpr (kHeld > 0) for_own_pieces<kHeld>(own, team, load_inputs);
  if constexpr (kHeld == 1 || kHeld == 2) for_own_pieces<kHeld>(own, team, load_weight);
  float squares = 0;
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    if constexpr (kHeld == 0) load_inputs(piece, held);
    if (residual) {  // what is normalised is the sum as stored
#pragma unroll
      for (int i = 0; i < N; i++) {
        const float branch = as_float(inputs[held].value[i]);
        inputs[held].value[i] = from_float<T>(fmaf(branch, a.branch_scale, as_float(residuals[held].value[i])));
      }
      if (stores_sum) {
        store_piece<N>(a.sum.at(own.row, own.column) + piece * N, inputs[held], count_of(piece), kWhole || a.aligned);
      }
    }
    set_values(held);
#pragma unroll
    for (int i = 0; i < N; i++) squares = fmaf(values[held][i], values[held][i], squares);
  });
  const float scale = 1.0f / sqrtf(total(squares) / static_cast<float>(size) + a.eps);

  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    if constexpr (kHeld == 0) {
      inputs[held] = residual ? load_from(a.sum, piece) : load_from(a.x, piece);
      if (gate_first || gate_last) gates[held] = load_from(a.gate, piece);
      set_values(held);
    }
    if constexpr (kHeld != 1 && kHeld != 2) load_weight(piece, held);
    Pack<T, N> out;
#pragma unroll
    for (int i = 0; i < N; i++) {
      float v = values[held][i] * scale * (weight[held].value[i] + a.centre);
      if (gate_last) v *= gate_of<T>(a.gate_activation, as_float(gates[held].value[i]));
      out.value[i] = from_float<T>(v);
    }
    put(piece, out, count_of(piece));
  });
}

// The same by all threads of the block. `shared`: kWarp floats.
template <int kHeld, bool kWhole, NormParts kParts = NormParts::kAny, class T, class Put>
__device__ __forceinline__ void normalise(const RmsNormGroups<T>& a, const OwnGroup& own, float* shared, Put put) {
  normalise_by<kHeld, kWhole, kParts>(a, own, [&](float x) { return team_sum(x, a.groups.team, shared); }, put, true);
}

}  // namespace linattn::cuda
