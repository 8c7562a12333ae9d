// Which instructions the kernels use. The best level of the machine is taken; LINATTN_CPU forces one by name.
#pragma once
#include <string>

namespace linattn::cpu {

// In rising order on x86-64. kAvx512Bf16 is kAvx512 plus AVX512_BF16 (dpbf16).
enum class Level { kBaseline = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3, kNeon = 4 };

const char* level_name(Level level);
Level best_level();
// The level named by `name` ("" = best). Throws ERR_ARGUMENT for an unknown name or one that the machine lacks.
Level choose_level(const std::string& name);

}  // namespace linattn::cpu
