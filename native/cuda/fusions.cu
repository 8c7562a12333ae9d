#include <algorithm>

#include "cuda/fusions.h"
#include "cuda/ops/delta-step.h"
#include "cuda/ops/norm-rope.h"

namespace linattn::cuda {
namespace {

bool overlap(const Tensor& a, const Tensor& b) {
  if (!a || !b || a.size() == 0 || b.size() == 0) return false;
  const auto end = [](const Tensor& t) {
    const int64_t rows = t.rank > 0 ? t.shape[0] - 1 : 0;
    return t.as<char>() + (rows * t.stride0 + t.inner()) * static_cast<int64_t>(dtype_bytes(t.dtype));
  };
  return a.as<char>() < end(b) && b.as<char>() < end(a);
}

template <class Op>
const Op* at_place(const RecordedOps& ops, size_t at) {
  return at < ops.size() ? ops[at].as<Op>() : nullptr;
}

size_t fuse_delta_step(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* conv = at_place<CausalConv>(ops, at);
  const auto* gates = at_place<DeltaGates>(ops, at + 1);
  const auto* attention = at_place<LinearAttention>(ops, at + 2);
  return conv && gates && attention && step_delta(*conv, *gates, *attention, cuda) ? 3 : 0;
}

size_t fuse_turns(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto *query_norm = at_place<RmsNorm>(ops, at), *key_norm = at_place<RmsNorm>(ops, at + 2);
  const auto *query_turn = at_place<Rope>(ops, at + 1), *key_turn = at_place<Rope>(ops, at + 3);
  if (!query_norm || !key_norm || !query_turn || !key_turn) return 0;
  return norm_and_turn({*query_norm, *query_turn}, {*key_norm, *key_turn}, cuda) ? 4 : 0;
}

}  // namespace

bool apart(std::initializer_list<Tensor> written, std::initializer_list<Tensor> read) {
  return std::all_of(written.begin(), written.end(), [&](const Tensor& to) {
    return std::none_of(read.begin(), read.end(), [&](const Tensor& from) { return overlap(to, from); });
  });
}

size_t run_fused(const RecordedOps& ops, size_t at, Cuda& cuda) {
  for (const auto fuse : {&fuse_delta_step, &fuse_turns}) {
    if (const size_t done = fuse(ops, at, cuda)) return done;
  }
  return 0;
}

}  // namespace linattn::cuda
