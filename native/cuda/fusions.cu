#include <algorithm>

#include "cuda/fusions.h"
#include "cuda/ops/begin-decode.h"
#include "cuda/ops/delta-mixer.h"
#include "cuda/ops/delta-step.h"
#include "cuda/ops/matmul.h"
#include "cuda/ops/norm-rope.h"
#include "cuda/ops/softmax-attention-step.h"

namespace linattn::cuda {
namespace {

// Rows at the same distance from one another, those of one tensor in the gaps of the other's.
bool interleaved(const Tensor& a, const Tensor& b) {
  const auto bytes = [](const Tensor& t, int64_t values) {
    return values * static_cast<int64_t>(dtype_bytes(t.dtype));
  };
  const int64_t stride = bytes(a, a.stride0);
  if (a.rank < 1 || b.rank < 1 || stride <= 0 || stride != bytes(b, b.stride0)) return false;
  const int64_t apart = ((b.as<char>() - a.as<char>()) % stride + stride) % stride;
  return apart >= bytes(a, a.inner()) && apart + bytes(b, b.inner()) <= stride;
}

bool overlap(const Tensor& a, const Tensor& b) {
  if (!a || !b || a.size() == 0 || b.size() == 0 || interleaved(a, b)) return false;
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

bool fuse_begin(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* begin = at_place<BeginStep>(ops, at);
  const auto* marks = at_place<MarkSeen>(ops, at + 1);
  const auto* embedding = at_place<Embedding>(ops, at + 2);
  const auto* converted = at_place<Convert>(ops, at + 3);
  if (!begin || !marks || !embedding || !converted) return false;
  return begin_decode(*begin, *marks, *embedding, *converted, cuda);
}

bool fuse_delta_step(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* conv = at_place<CausalConv>(ops, at);
  const auto* gates = at_place<DeltaGates>(ops, at + 1);
  const auto* attention = at_place<LinearAttention>(ops, at + 2);
  return conv && gates && attention && step_delta(*conv, *gates, *attention, cuda);
}

bool fuse_turns(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto *query_norm = at_place<RmsNorm>(ops, at), *key_norm = at_place<RmsNorm>(ops, at + 2);
  const auto *query_turn = at_place<Rope>(ops, at + 1), *key_turn = at_place<Rope>(ops, at + 3);
  if (!query_norm || !key_norm || !query_turn || !key_turn) return false;
  return norm_and_turn({*query_norm, *query_turn}, {*key_norm, *key_turn}, cuda);
}

// Whether an op writes any of a tensor's memory.
struct Writes {
  const Tensor& to;
  bool any = false;

  void in(const char*, const Tensor&) {}
  void optional(const char*, const Tensor&) {}
  void inout(const char*, const Tensor& t) { any |= overlap(t, to); }
  void out(const char*, const Tensor& t) { any |= overlap(t, to); }
  template <class T>
  void number(const char*, const T&) {}
};

template <class Visitor>
void visit(const RecordedOp& recorded, Visitor& visitor) {
#define LINATTN_VISIT(Op)                       \
  if (const auto* fields = recorded.as<Op>()) { \
    Op op = *fields;                            \
    op.visit(visitor);                          \
  }
  LINATTN_OPS(LINATTN_VISIT)
#undef LINATTN_VISIT
}

bool writes(const RecordedOp& recorded, const Tensor& to) {
  Writes visitor{to};
  visit(recorded, visitor);
  return visitor.any;
}

// Whether an op writes what one before it in the group reads: one kernel of both may do so too early.
struct Overwritten {
  const RecordedOps& ops;
  size_t next, end;
  bool any = false;

  void in(const char*, const Tensor& t) {
    for (size_t at = next; at < end; at++) any |= writes(ops[at], t);
  }
  void optional(const char* name, const Tensor& t) { in(name, t); }
  void inout(const char* name, const Tensor& t) { in(name, t); }
  void out(const char*, const Tensor&) {}
  template <class T>
  void number(const char*, const T&) {}
};

bool overwritten(const RecordedOps& ops, size_t at, size_t count) {
  bool any = false;
  for (size_t i = 0; i + 1 < count; i++) {
    Overwritten visitor{ops, at + i + 1, at + count};
    visit(ops[at + i], visitor);
    any |= visitor.any;
  }
  return any;
}

bool fuse_attention_step(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto *query_norm = at_place<RmsNorm>(ops, at), *key_norm = at_place<RmsNorm>(ops, at + 2);
  const auto *query_turn = at_place<Rope>(ops, at + 1), *key_turn = at_place<Rope>(ops, at + 3);
  const auto* attention = at_place<SoftmaxAttention>(ops, at + 4);
  if (!query_norm || !key_norm || !query_turn || !key_turn || !attention) return false;
  for (size_t i = 0; i < at; i++) {
    if (writes(ops[i], attention->pages)) return false;
  }
  return step_attention({*query_norm, *query_turn}, {*key_norm, *key_turn}, *attention, cuda);
}

// The op at a place, if it is a product of the one row that `made` holds.
const Matmul* product_of_row(const RecordedOps& ops, size_t at, const Tensor& made) {
  const auto* product = at_place<Matmul>(ops, at);
  const bool serves = product && product->path != ProductPath::kManyRows && product->x.data == made.data &&
                      product->x.dtype == made.dtype && product->x.shape[0] == 1 && made.shape[0] == 1 &&
                      product->x.size() == made.size();
  return serves ? product : nullptr;
}

bool fuse_delta_mixer(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* norm = at_place<RmsNorm>(ops, at);
  const auto* input = norm ? product_of_row(ops, at + 1, norm->out) : nullptr;
  const auto* conv = at_place<CausalConv>(ops, at + 2);
  const auto* gates = at_place<DeltaGates>(ops, at + 3);
  const auto* attention = at_place<LinearAttention>(ops, at + 4);
  if (!input || !conv || !gates || !attention) return false;
  return mix_delta({*norm, *input, *conv, *gates, *attention}, cuda);
}

bool fuse_normed_product(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* norm = at_place<RmsNorm>(ops, at);
  const auto* product = norm ? product_of_row(ops, at + 1, norm->out) : nullptr;
  if (!product || !apart({norm->out, norm->sum, product->out}, {norm->x, norm->residual, norm->gate}) ||
      !apart({product->out}, {norm->sum})) {
    return false;
  }
  cuda.op = kOpIndex<Matmul>;
  return multiply_normed(*norm, product_of(*product), cuda);
}

bool fuse_head(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* norm = at_place<RmsNorm>(ops, at);
  const auto* convert = norm ? at_place<Convert>(ops, at + 1) : nullptr;
  if (!convert || convert->into || convert->x.data != norm->out.data || convert->x.dtype != norm->out.dtype ||
      convert->x.size() != norm->out.size()) {
    return false;
  }
  const Matmul* const product = product_of_row(ops, at + 2, convert->out);
  if (!product || !apart({norm->out, norm->sum, convert->out, product->out}, {norm->x, norm->residual, norm->gate}) ||
      !apart({product->out, convert->out}, {norm->sum}) || !apart({product->out}, {norm->out})) {
    return false;
  }
  cuda.op = kOpIndex<Matmul>;
  return multiply_normed_long(*norm, convert->out.as<float>(), product_of(*product), cuda);
}

bool fuse_gated_product(const RecordedOps& ops, size_t at, Cuda& cuda) {
  const auto* gated = at_place<GatedActivation>(ops, at);
  const auto* product = gated ? product_of_row(ops, at + 1, gated->out) : nullptr;
  if (!product || !apart({gated->out, product->out}, {gated->x, gated->gate, gated->base})) return false;
  cuda.op = kOpIndex<Matmul>;
  return multiply_gated(*gated, product_of(*product), cuda);
}

}  // namespace

bool apart(std::initializer_list<Tensor> written, std::initializer_list<Tensor> read) {
  return std::all_of(written.begin(), written.end(), [&](const Tensor& to) {
    return std::none_of(read.begin(), read.end(), [&](const Tensor& from) { return overlap(to, from); });
  });
}

bool begins_at(const Tensor& part, const Tensor& whole, int64_t channel) {
  return part.as<char>() == whole.as<char>() + channel * static_cast<int64_t>(dtype_bytes(whole.dtype)) &&
         part.dtype == whole.dtype && (part.shape[0] == 1 || part.stride0 == whole.stride0);
}

size_t run_fused(const RecordedOps& ops, size_t at, Cuda& cuda) {
  struct Fusion {
    size_t count;
    bool (*run)(const RecordedOps&, size_t, Cuda&);
  };
  constexpr Fusion kFusions[] = {{4, fuse_begin},          {5, fuse_delta_mixer},  {3, fuse_delta_step},
                                 {5, fuse_attention_step}, {4, fuse_turns},        {2, fuse_normed_product},
                                 {3, fuse_head},           {2, fuse_gated_product}};
  for (const auto& [count, run] : kFusions) {
    if (at + count <= ops.size() && !overwritten(ops, at, count) && run(ops, at, cuda)) return count;
  }
  return 0;
}

}  // namespace linattn::cuda
