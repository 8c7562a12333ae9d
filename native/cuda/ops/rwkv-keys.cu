#include "cuda/device/activate.cuh"
#include "cuda/ops/norm.cuh"
#include "ops/rwkv-keys.h"

namespace linattn::cuda {
namespace {

template <class T>
struct RwkvHeads {
  NormGroups groups;
  StridedRows<const T> r, k, a;
  const float *key_scale, *key_mix, *bonus_weight;  // [H, K]
  StridedRows<T> read, write, key;
  float* bonus;  // [T, H]
  bool aligned, weights_aligned;
};

template <class T, int kHeld>
__global__ void __launch_bounds__(kNormThreads) rwkv_keys(RwkvHeads<T> p) {
  constexpr int N = kPiece<T>;
  __shared__ float shared[kWarp];
  const OwnGroup own(p.groups);
  wait_for_inputs();
  let_next_begin();
  const int team = p.groups.team, size = p.groups.size;
  const auto load_from = [&](const auto& rows, int piece) {
    return load_piece<N>(rows.at(own.row, own.column) + piece * N, size - piece * N, p.aligned);
  };
  const auto load_weight = [&](const float* weight, int piece) {
    return load_piece<N>(weight + own.column + piece * N, size - piece * N, p.weights_aligned);
  };
  Pack<T, N> keys[std::max(kHeld, 1)];
  Pack<float, N> scales[std::max(kHeld, 1)];
  float squares = 0;
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    keys[held] = load_from(p.k, piece);
    scales[held] = load_weight(p.key_scale, piece);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float v = as_float(keys[held].value[i]) * scales[held].value[i];
      squares = fmaf(v, v, squares);
    }
  });
  const float factor = 1.0f / fmaxf(sqrtf(team_sum(squares, team, shared)), 1e-12f);
  float bonus = 0;
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    if constexpr (kHeld == 0) {
      keys[held] = load_from(p.k, piece);
      scales[held] = load_weight(p.key_scale, piece);
    }
    const auto rates = load_from(p.a, piece), receptance = load_from(p.r, piece);
    const auto mix = load_weight(p.key_mix, piece), weight = load_weight(p.bonus_weight, piece);
    Pack<T, N> read, write, key;
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float k = as_float(keys[held].value[i]), rate = sigmoid(as_float(rates.value[i]));
      const float unit = k * scales[held].value[i] * factor;
      const float mixed = k * fmaf(rate - 1.0f, mix.value[i], 1.0f);
      read.value[i] = from_float<T>(unit);
      write.value[i] = from_float<T>(-unit * rate);
      key.value[i] = from_float<T>(mixed);
      bonus = fmaf(as_float(receptance.value[i]) * mixed, weight.value[i], bonus);
    }
    const auto put = [&](const StridedRows<T>& rows, const Pack<T, N>& pack) {
      store_piece<N>(rows.at(own.row, own.column) + piece * N, pack, size - piece * N, p.aligned);
    };
    put(p.read, read);
    put(p.write, write);
    put(p.key, key);
  });
  bonus = team_sum(bonus, team, shared);
  if (own.pieces > 0 && own.place == 0) p.bonus[own.row * p.groups.per_row + own.in_row] = bonus;
}

}  // namespace

void run(const RwkvKeys& op, Cuda& cuda) {
  if (op.k.size() == 0) return;
  for_float(op.k.dtype, [&](auto t) {
    using T = decltype(t);
    const NormGroups groups(op.k.shape[0], op.k.inner(), op.k.shape[2], kPiece<T>);
    const RwkvHeads<T> arguments{groups,
                                 StridedRows<const T>(op.r),
                                 StridedRows<const T>(op.k),
                                 StridedRows<const T>(op.a),
                                 op.key_scale.as<const float>(),
                                 op.key_mix.as<const float>(),
                                 op.bonus_weight.as<const float>(),
                                 StridedRows<T>(op.read),
                                 StridedRows<T>(op.write),
                                 StridedRows<T>(op.key),
                                 op.bonus.as<float>(),
                                 pieces_aligned(groups, kPiece<T>, {op.r, op.k, op.a, op.read, op.write, op.key}),
                                 pieces_aligned(groups, 4, {op.key_scale, op.key_mix, op.bonus_weight})};
    with_held(groups, [&](auto held) {
      launch_early(cuda, rwkv_keys<T, held>, groups.blocks(), static_cast<unsigned>(groups.threads), 0, arguments);
    });
  });
}

}  // namespace linattn::cuda
