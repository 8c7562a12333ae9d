// The implementation of every op of op-list.h, by index.
#pragma once
#include "cuda/cuda.h"

namespace linattn::cuda {

using OpFunction = void (*)(const void* op, Cuda& cuda);
const OpFunction* op_functions();
const char* op_name(int op);
extern const int kOpCount;

}  // namespace linattn::cuda
