// Checks of what an op with state learns only when it runs: offsets and slots come from device memory.
#pragma once
#include <cstdint>

#include "core/op-fields.h"

namespace linattn::cpu {

// offsets rise from 0 to tokens. Throws ERR_ARGUMENT.
void check_offsets(const char* op, const Sequences& sequences);

// Slots are -1 or in [0, slots); every slot is written at most once, and none that another row writes is read. `more`
// are further slots that are written, of the argument `name`. Throws ERR_ARGUMENT.
void check_slots(const char* op, const Sequences& sequences, int64_t slots, const char* name = "",
                 const int32_t* more = nullptr, int64_t count = 0);

}  // namespace linattn::cpu
