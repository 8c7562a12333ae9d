#include "cuda/ops/norm.cuh"
#include "ops/l2-norm.h"

namespace linattn::cuda {
namespace {

template <class T>
struct L2NormGroups {
  NormGroups groups;
  StridedRows<const T> x;
  StridedRows<T> out;
  bool aligned;
  float scale, eps;
};

template <class T, int kHeld>
__global__ void __launch_bounds__(kNormThreads) l2_norm(L2NormGroups<T> a) {
  constexpr int N = kPiece<T>;
  __shared__ float shared[kWarp];
  const OwnGroup own(a.groups);
  wait_for_inputs();
  const T* const x = a.x.at(own.row, own.column);
  T* const out = a.out.at(own.row, own.column);
  const int team = a.groups.team;
  Pack<T, N> values[std::max(kHeld, 1)];
  float squares = 0;
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    values[held] = load_piece<N>(x + piece * N, a.groups.size - piece * N, a.aligned);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const float v = as_float(values[held].value[i]);
      squares = fmaf(v, v, squares);
    }
  });
  const float factor = a.scale / sqrtf(team_sum(squares, team, shared) + a.eps);
  for_own_pieces<kHeld>(own, team, [&](int piece, int held) {
    const int count = a.groups.size - piece * N;
    if constexpr (kHeld == 0) values[held] = load_piece<N>(x + piece * N, count, a.aligned);
#pragma unroll
    for (int i = 0; i < N; i++) values[held].value[i] = from_float<T>(as_float(values[held].value[i]) * factor);
    store_piece<N>(out + piece * N, values[held], count, a.aligned);
  });
}

}  // namespace

void run(const L2Norm& op, Cuda& cuda) {
  if (op.x.size() == 0) return;
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const NormGroups groups(op.x.shape[0], op.x.inner(), op.x.shape[2], kPiece<T>);
    const bool aligned = pieces_aligned(groups, kPiece<T>, {op.x, op.out});
    const L2NormGroups<T> arguments{groups, StridedRows<const T>(op.x), StridedRows<T>(op.out), aligned, op.scale,
                                    op.eps};
    with_held(groups, [&](auto held) {
      launch_early(cuda, l2_norm<T, held>, groups.blocks(), static_cast<unsigned>(groups.threads), 0, arguments);
    });
  });
}

}  // namespace linattn::cuda
