// Indices of rows that come in a tensor, so that only the command itself can check them.
#pragma once
#include <cstdint>
#include <string>

#include "core/error.h"
#include "core/tensor.h"

namespace linattn::cpu {

// indices[i] (int32), which must be in [0, rows).
inline int64_t row_index(const char* op, const char* name, const Tensor& indices, int64_t i, int64_t rows) {
  const int64_t index = indices.as<int32_t>()[i * indices.stride0];
  if (index >= 0 && index < rows) return index;
  throw Error("ERR_ARGUMENT", std::string(op) + ": " + name + "[" + std::to_string(i) + "] must be in [0, " +
                                  std::to_string(rows) + "), got " + std::to_string(index));
}

}  // namespace linattn::cpu
