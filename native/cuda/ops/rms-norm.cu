#include "cuda/ops/rms-norm.cuh"

namespace linattn::cuda {
namespace {

template <class T, int kHeld, bool kWhole>
__global__ void __launch_bounds__(kNormThreads) rms_norm(RmsNormGroups<T> a) {
  __shared__ float shared[kWarp];
  const OwnGroup own(a.groups);
  prefetch_weights<T, kHeld>(a, own);
  wait_for_inputs();
  normalise<kHeld, kWhole>(a, own, shared, [&](int piece, const Pack<T, kPiece<T>>& out, int count) {
    store_piece<kPiece<T>>(a.out.at(own.row, own.column) + piece * kPiece<T>, out, count, kWhole || a.aligned);
  });
}

constexpr int kManyWarps = kSmallTeams / kWarp;  // of a block of rms_norm_many

// For many groups: a warp, or a part of one, has kGroups of them at once, and of each kPieces pieces a lane, so that
// many loads are under way and no warp waits for another. The sums are taken as normalise() takes them, to the bit.
template <class T, int kPieces, int kGroups, bool kGated>
__global__ void __launch_bounds__(kSmallTeams) rms_norm_many(RmsNormGroups<T> a) {
  constexpr int N = kPiece<T>;
  using Piece = Pack<T, N>;
  const NormGroups& groups = a.groups;
  const int team = min(groups.team, kWarp), teams = kWarp / team;
  const int lane = threadIdx.x % kWarp, place = lane % team;
  const int warp = static_cast<int>(blockIdx.x) * kManyWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int first = warp * teams * kGroups + lane / team;
  int rows[kGroups], in_row[kGroups];
  int row = groups.per_row == 1 ? first : first / groups.per_row, rest = first - row * groups.per_row;
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
    rows[g] = row;
    in_row[g] = rest;
    for (rest += teams; rest >= groups.per_row; rest -= groups.per_row) row++;
  }
  // body(group, piece of the lane, column) for the pieces that there are.
  const auto each = [&](auto body) {
#pragma unroll
    for (int g = 0; g < kGroups; g++) {
#pragma unroll
      for (int p = 0; p < kPieces; p++) {
        const int piece = place + p * kWarp;
        if (first + g * teams < groups.count && piece < groups.pieces) body(g, p, in_row[g] * groups.size + piece * N);
      }
    }
  };
  const bool residual = !kGated && a.residual.data;
  wait_for_inputs();

  Piece inputs[kGroups][kPieces], others[kGroups][kPieces];  // the latter of the gate or the residual
  const auto load_from = [&](const StridedRows<const T>& from, Piece(&to)[kGroups][kPieces]) {
    each([&](int g, int p, int column) { to[g][p] = *reinterpret_cast<const Piece*>(from.at(rows[g], column)); });
  };
  load_from(a.x, inputs);
  if (kGated || residual) load_from(kGated ? a.gate : a.residual, others);
  float squares[kGroups][kPieces] = {};
  each([&](int g, int p, int column) {
    Piece& input = inputs[g][p];
    if (residual) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        const float branch = as_float(input.value[i]);
        input.value[i] = from_float<T>(fmaf(branch, a.branch_scale, as_float(others[g][p].value[i])));
      }
      *reinterpret_cast<Piece*>(a.sum.at(rows[g], column)) = input;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float v = as_float(input.value[i]);
      squares[g][p] = fmaf(v, v, squares[g][p]);
    }
  });
  for (int apart = team / 2; apart > 0; apart /= 2) {
#pragma unroll
    for (auto& of_group : squares) {
#pragma unroll
      for (float& sum : of_group) sum += __shfl_xor_sync(kFullMask, sum, apart);
    }
  }
  float scales[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
#pragma unroll
    for (int apart = kPieces / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int p = 0; p < apart; p++) squares[g][p] += squares[g][p + apart];
    }
    scales[g] = 1.0f / sqrtf(squares[g][0] / static_cast<float>(groups.size) + a.eps);
  }
  each([&](int g, int p, int column) {
    const int of_weight = a.weight_groups == 1 ? 0 : in_row[g] % a.weight_groups;
    const float* const from = a.weight + of_weight * groups.size + (place + p * kWarp) * N;
    const auto weight = *reinterpret_cast<const Pack<float, N>*>(from);
    Piece out;
#pragma unroll
    for (int i = 0; i < N; i++) {
      float v = as_float(inputs[g][p].value[i]) * scales[g] * (weight.value[i] + a.centre);
      if (kGated) v *= gate_of<T>(a.gate_activation, as_float(others[g][p].value[i]));
      out.value[i] = from_float<T>(v);
    }
    *reinterpret_cast<Piece*>(a.out.at(rows[g], column)) = out;
  });
}

// Whether there are enough groups of a kind that rms_norm_many() has, which then runs.
template <class T>
bool run_many(const RmsNormGroups<T>& a, Cuda& cuda) {
  const NormGroups& groups = a.groups;
  const int teams = kManyWarps * kWarp / std::min(groups.team, kWarp);
  const bool gated = a.gate.data;
  if (!a.whole() || groups.pieces > 4 * kWarp || groups.count > INT32_MAX / 2 ||
      (gated && (a.residual.data || a.gate_order == GateOrder::kBefore))) {
    return false;
  }
  const auto run = [&](auto pieces, auto at_once) {
    const int64_t blocks = ceil_div(groups.count, int64_t{teams} * at_once);
    if (blocks < 2 * cuda.properties.multiprocessors) return false;
    const auto kernel = gated ? rms_norm_many<T, pieces, at_once, true> : rms_norm_many<T, pieces, at_once, false>;
    launch_early(cuda, kernel, static_cast<unsigned>(blocks), kSmallTeams, 0, a);
    return true;
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  constexpr std::integral_constant<int, 4> four;
  if (groups.pieces <= kWarp) return run(one, two);
  return groups.pieces <= 2 * kWarp ? run(two, one) : run(four, one);
}

}  // namespace

void run(const RmsNorm& op, Cuda& cuda) {
  if (op.x.size() == 0) return;
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const RmsNormGroups<T> arguments = rms_norm_groups<T>(op);
    if (run_many(arguments, cuda)) return;
    const NormGroups& groups = arguments.groups;
    with_held(groups, [&](auto held) {
      const auto kernel = arguments.whole() ? rms_norm<T, held, true> : rms_norm<T, held, false>;
      launch_early(cuda, kernel, groups.blocks(), static_cast<unsigned>(groups.threads), 0, arguments);
    });
  });
}

}  // namespace linattn::cuda
