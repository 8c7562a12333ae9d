// The commands of a graph, run when all of them are known: neighbours that one kernel does as well as several take that
// kernel. It writes all that they write, with the same bits, so nothing else has to know.
#pragma once
#include <initializer_list>
#include <memory>
#include <vector>

#include "cuda/cuda.h"
#include "ops/op-list.h"

namespace linattn::cuda {

enum OpIndex : int {
#define LINATTN_INDEX(Op) kIndexOf##Op,
  LINATTN_OPS(LINATTN_INDEX)
#undef LINATTN_INDEX
};

template <class Op>
constexpr int kOpIndex = -1;
#define LINATTN_OP_INDEX(Op) \
  template <>                \
  inline constexpr int kOpIndex<Op> = kIndexOf##Op;
LINATTN_OPS(LINATTN_OP_INDEX)
#undef LINATTN_OP_INDEX

struct RecordedOp {
  int op;
  std::shared_ptr<const void> fields;

  // Null: another op.
  template <class Op>
  const Op* as() const {
    return op == kOpIndex<Op> ? static_cast<const Op*>(fields.get()) : nullptr;
  }
};

using RecordedOps = std::vector<RecordedOp>;

// Whether no memory of the first list is in the second one: what blocks of a kernel write while others read.
bool apart(std::initializer_list<Tensor> written, std::initializer_list<Tensor> read);

// Whether `part` is a view of the rows of `whole` that begins at `channel`.
bool begins_at(const Tensor& part, const Tensor& whole, int64_t channel);

// Runs some of the ops from `at` on with one kernel. Returns how many; 0: none, each is to run alone.
size_t run_fused(const RecordedOps& ops, size_t at, Cuda& cuda);

}  // namespace linattn::cuda
