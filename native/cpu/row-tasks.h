// How ops whose rows are independent are cut into tasks. No result depends on the cut.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/tensor.h"
#include "cpu/cpu.h"

namespace linattn::cpu {

constexpr int64_t kTaskValues = 16384;  // about 10 us of work: more than it takes to wake a thread

// body(begin, end, thread) for ranges of rows of `width` values each.
template <class Body>
void for_rows(Cpu& cpu, int64_t rows, int64_t width, Body&& body) {
  const int64_t step = std::max<int64_t>(1, kTaskValues / std::max<int64_t>(1, width));
  cpu.pool->run((rows + step - 1) / step,
                [&](int64_t task, int thread) { body(task * step, std::min(rows, (task + 1) * step), thread); });
}

// body(row, begin, end): values begin to end of each row of tensors shaped like x. With `flat` (all are contiguous) the
// whole tensor is one row.
template <class Body>
void for_pieces(Cpu& cpu, const Tensor& x, bool flat, Body&& body) {
  if (flat) {
    for_rows(cpu, x.size(), 1, [&](int64_t begin, int64_t end, int) { body(0, begin, end); });
    return;
  }
  for_rows(cpu, x.shape[0], x.inner(), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) body(row, 0, x.inner());
  });
}

// Calls body(float{}), body(bfloat16{}) or body(float16{}).
template <class Body>
void with_float_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kBFloat16:
      return body(bfloat16{});
    case DType::kFloat16:
      return body(float16{});
    default:
      throw Error("ERR_DTYPE", std::string("a float dtype was expected, got ") + dtype_name(dtype));
  }
}

}  // namespace linattn::cpu
