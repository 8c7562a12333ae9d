#include "cpu/level.h"

#include "core/error.h"

namespace linattn::cpu {

const char* level_name(Level level) {
  constexpr const char* kNames[] = {"baseline", "avx2", "avx512", "avx512bf16", "neon"};
  return kNames[static_cast<int>(level)];
}

Level best_level() {
#if defined(__x86_64__)
  // __builtin_cpu_supports checks that the operating system saves the registers too (XGETBV).
  __builtin_cpu_init();
  // Every processor with AVX2 has F16C; clang 14 cannot ask for it by name.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!avx2) return Level::kBaseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (!avx512) return Level::kAvx2;
  return __builtin_cpu_supports("avx512bf16") ? Level::kAvx512Bf16 : Level::kAvx512;
#elif defined(__aarch64__)
  return Level::kNeon;
#else
  return Level::kBaseline;
#endif
}

Level choose_level(const std::string& name) {
  const Level best = best_level();
  if (name.empty()) return best;
  for (const Level level : {Level::kBaseline, Level::kAvx2, Level::kAvx512, Level::kAvx512Bf16, Level::kNeon}) {
    if (name != level_name(level)) continue;
    const bool runs = level == Level::kBaseline || level == best || (best != Level::kNeon && level < best);
    if (runs) return level;
    throw Error("ERR_ARGUMENT",
                "LINATTN_CPU: this machine cannot run '" + name + "', its best level is '" + level_name(best) + "'");
  }
  throw Error("ERR_ARGUMENT", "LINATTN_CPU must be baseline, avx2, avx512, avx512bf16 or neon, got '" + name + "'");
}

}  // namespace linattn::cpu
