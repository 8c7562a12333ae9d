// The implementation of every op of op-list.h, by index.
#pragma once
#include <memory>

#include "cuda/cuda.h"

namespace linattn::cuda {

using OpFunction = void (*)(const void* op, Cuda& cuda);
const OpFunction* op_functions();
// Copies the op's struct.
using OpCopy = std::shared_ptr<const void> (*)(const void* op);
const OpCopy* op_copies();
const char* op_name(int op);
extern const int kOpCount;

}  // namespace linattn::cuda
