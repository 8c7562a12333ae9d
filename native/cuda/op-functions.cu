#include "cuda/op-functions.h"
#include "ops/op-list.h"

namespace linattn::cuda {

#define LINATTN_DECLARE(Op) void run(const Op& op, Cuda& cuda);
LINATTN_OPS(LINATTN_DECLARE)
#undef LINATTN_DECLARE

namespace {

constexpr const char* kNames[] = {
#define LINATTN_NAME(Op) Op::kName,
    LINATTN_OPS(LINATTN_NAME)
#undef LINATTN_NAME
};

}  // namespace

const int kOpCount = static_cast<int>(sizeof(kNames) / sizeof(kNames[0]));

const char* op_name(int op) { return kNames[op]; }

const OpFunction* op_functions() {
  static constexpr OpFunction kFunctions[] = {
#define LINATTN_FUNCTION(Op) [](const void* op, Cuda& cuda) { run(*static_cast<const Op*>(op), cuda); },
      LINATTN_OPS(LINATTN_FUNCTION)
#undef LINATTN_FUNCTION
  };
  return kFunctions;
}

const OpCopy* op_copies() {
  static constexpr OpCopy kCopies[] = {
#define LINATTN_COPY(Op) \
  [](const void* op) -> std::shared_ptr<const void> { return std::make_shared<const Op>(*static_cast<const Op*>(op)); },
      LINATTN_OPS(LINATTN_COPY)
#undef LINATTN_COPY
  };
  return kCopies;
}

}  // namespace linattn::cuda
