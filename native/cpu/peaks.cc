#include "cpu/peaks.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "cpu/simd.h"

#define LINATTN_KERNELS "cpu/peaks-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

constexpr int64_t kSteps = 50'000;
constexpr int64_t kTasksOfThread = 16;
constexpr size_t kPart = size_t{1} << 20;  // floats that a thread reads at a time

// Seconds of `tasks` runs of `body(task)`, whose results are kept so that nothing is optimised away.
template <class Body>
double seconds(Cpu& cpu, int64_t tasks, Body body) {
  static std::atomic<float> kept;
  const auto start = std::chrono::steady_clock::now();
  cpu.pool->run(tasks, [&](int64_t task, int) { kept.store(body(task), std::memory_order_relaxed); });
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double peak(Cpu& cpu, float (*chains)(int64_t), int flops_of_step) {
  const int64_t tasks = kTasksOfThread * cpu.pool->threads();
  const double time = seconds(cpu, tasks, [&](int64_t) { return chains(kSteps); });
  return static_cast<double>(tasks * kSteps * flops_of_step) / time / 1e9;
}

}  // namespace

double multiply_add_peak(Cpu& cpu) {
  return peak(cpu, LINATTN_DISPATCH(cpu.level, multiply_adds), LINATTN_DISPATCH(cpu.level, multiply_add_flops)());
}

double dot_bfloat16_peak([[maybe_unused]] Cpu& cpu) {
#if defined(__x86_64__)
  if (cpu.level == Level::kAvx512Bf16) return peak(cpu, &avx512bf16::dot_products, avx512bf16::dot_product_flops());
#endif
  return 0;
}

double read_bandwidth(Cpu& cpu, const float* values, size_t count) {
  const auto read = LINATTN_DISPATCH(cpu.level, read_floats);
  const double time = seconds(cpu, static_cast<int64_t>((count + kPart - 1) / kPart), [&](int64_t task) {
    const size_t start = static_cast<size_t>(task) * kPart;
    return read(values + start, std::min(kPart, count - start));
  });
  return static_cast<double>(count * sizeof(float)) / time / 1e9;
}

}  // namespace linattn::cpu
