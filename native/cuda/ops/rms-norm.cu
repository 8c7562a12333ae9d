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

}  // namespace

void run(const RmsNorm& op, Cuda& cuda) {
  if (op.x.size() == 0) return;
  for_float(op.x.dtype, [&](auto t) {
    using T = decltype(t);
    const RmsNormGroups<T> arguments = rms_norm_groups<T>(op);
    const NormGroups& groups = arguments.groups;
    with_held(groups, [&](auto held) {
      const auto kernel = arguments.whole() ? rms_norm<T, held, true> : rms_norm<T, held, false>;
      launch_early(cuda, kernel, groups.blocks(), static_cast<unsigned>(groups.threads), 0, arguments);
    });
  });
}

}  // namespace linattn::cuda
