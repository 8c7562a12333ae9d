#include "cuda/ops/norm.cuh"
#include "ops/layer-norm.h"

namespace linattn::cuda {
namespace {

template <class T>
struct LayerNormGroups {
  NormGroups groups;
  StridedRows<const T> x;
  StridedRows<T> out;
  const float *weight, *bias;
  int weight_groups;  // groups that the weight covers
  bool aligned, weight_aligned;
  float eps;
};

// The mean is near + rest: a float32 alone would miss a mean that is large beside the deviations.
template <class T, int kHeld>
__global__ void __launch_bounds__(kNormThreads) layer_norm(LayerNormGroups<T> a) {
  constexpr int N = kPiece<T>, kRoom = std::max(kHeld, 1);
  __shared__ float shared[kWarp];
  const OwnGroup own(a.groups);
  wait_for_inputs();
  const T* const x = a.x.at(own.row, own.column);
  const int team = a.groups.team, size = a.groups.size;
  const int64_t weights = static_cast<int64_t>(own.in_row % a.weight_groups) * size;
  const auto load_values = [&](int piece) { return load_piece<N>(x + piece * N, size - piece * N, a.aligned); };

  Pack<T, N> values[kRoom];
  Pack<float, N> weight[kRoom], bias[kRoom];
  const auto load_weights = [&](int piece, int held) {
    const int64_t at = weights + piece * N;
    weight[held] = load_piece<N>(a.weight + at, size - piece * N, a.weight_aligned);
    bias[held] = a.bias ? load_piece<N>(a.bias + at, size - piece * N, a.weight_aligned) : Pack<float, N>{};
  };

  float sum = 0;
  if constexpr (kHeld > 0) {
    for_own_pieces<kHeld>(own, team, [&](int piece, int held) { values[held] = load_values(piece); });
    if constexpr (kHeld <= 2) for_own_pieces<kHeld>(own, team, load_weights);
  }
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    if constexpr (kHeld == 0) values[held] = load_values(piece);
#pragma unroll
    for (int i = 0; i < N; i++) sum += as_float(values[held].value[i]);
  });
  const float near = team_sum(sum, team, shared) / static_cast<float>(size);

  float first = 0, second = 0;
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    if constexpr (kHeld == 0) values[held] = load_values(piece);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float d = piece * N + i < size ? as_float(values[held].value[i]) - near : 0.0f;
      first += d;
      second = fmaf(d, d, second);
    }
  });
  const float rest = team_sum(first, team, shared) / static_cast<float>(size);
  const float variance = fmaf(-rest, rest, team_sum(second, team, shared) / static_cast<float>(size));
  const float scale = 1.0f / sqrtf(variance + a.eps);

  T* const out = a.out.at(own.row, own.column);
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    if constexpr (kHeld == 0) values[held] = load_values(piece);
    if constexpr (kHeld == 0 || kHeld > 2) load_weights(piece, held);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float d = as_float(values[held].value[i]) - near - rest;
      values[held].value[i] = from_float<T>(fmaf(d * scale, weight[held].value[i], bias[held].value[i]));
    }
    store_piece<N>(out + piece * N, values[held], size - piece * N, a.aligned);
  });
}

}  // namespace

void run(const LayerNorm& op, Cuda& cuda) {
  if (op.x.size() == 0) return;
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const NormGroups groups(op.x.shape[0], op.x.inner(), op.group_size, kPiece<T>);
    const LayerNormGroups<T> arguments{groups,
                                       StridedRows<const T>(op.x),
                                       StridedRows<T>(op.out),
                                       op.weight.as<const float>(),
                                       op.bias.as<const float>(),
                                       static_cast<int>(op.weight.shape[0] / op.group_size),
                                       pieces_aligned(groups, kPiece<T>, {op.x, op.out}),
                                       pieces_aligned(groups, 4, {op.weight, op.bias}),
                                       static_cast<float>(op.eps)};
    with_held(groups, [&](auto held) {
      launch_early(cuda, layer_norm<T, held>, groups.blocks(), static_cast<unsigned>(groups.threads), 0, arguments);
    });
  });
}

}  // namespace linattn::cuda
