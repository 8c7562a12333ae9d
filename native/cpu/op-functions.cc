#include "cpu/op-functions.h"

#include "ops/op-list.h"

namespace linattn::cpu {

#define LINATTN_DECLARE(Op) void run(const Op& op, Cpu& cpu);
LINATTN_OPS(LINATTN_DECLARE)
#undef LINATTN_DECLARE

const OpFunction* op_functions() {
  static constexpr OpFunction kFunctions[] = {
#define LINATTN_FUNCTION(Op) [](const void* op, Cpu& cpu) { run(*static_cast<const Op*>(op), cpu); },
      LINATTN_OPS(LINATTN_FUNCTION)
#undef LINATTN_FUNCTION
  };
  return kFunctions;
}

}  // namespace linattn::cpu
