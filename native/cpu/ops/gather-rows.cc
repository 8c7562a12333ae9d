#include "ops/gather-rows.h"

#include <cstring>

#include "cpu/row-index.h"
#include "cpu/row-tasks.h"

namespace linattn::cpu {

void run(const GatherRows& op, Cpu& cpu) {
  const int64_t element = static_cast<int64_t>(dtype_bytes(op.x.dtype)), width = op.x.inner();
  for_rows(cpu, op.rows.shape[0], width, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = row_index("gatherRows", "rows", op.rows, i, op.x.shape[0]);
      std::memcpy(op.out.as<char>() + i * width * element, op.x.as<char>() + row * op.x.stride0 * element,
                  static_cast<size_t>(width * element));
    }
  });
}

}  // namespace linattn::cpu
