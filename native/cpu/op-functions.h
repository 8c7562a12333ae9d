// The cpu's implementation of every op of op-list.h, by index.
#pragma once
#include "cpu/cpu.h"

namespace linattn::cpu {

using OpFunction = void (*)(const void* op, Cpu& cpu);
const OpFunction* op_functions();

}  // namespace linattn::cpu
