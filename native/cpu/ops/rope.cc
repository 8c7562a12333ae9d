// Rotary position embedding. The angle is the float32 product that Hugging Face takes; its sine and cosine come from
// double precision, for in float32 their range reduction is wrong at long contexts.
#include "ops/rope.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "cpu/cpu.h"
#include "cpu/simd.h"

#define LINATTN_KERNELS "cpu/ops/rope-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

constexpr int64_t kTaskTokens = 16;

// Position of every token; 0, which turns nothing, for tokens of no sequence.
int32_t* positions_of_tokens(const Rope& op, Cpu& cpu) {
  const int64_t tokens = op.x.shape[0];
  const int32_t* const offsets = op.sequences.offsets.as<int32_t>();
  const int32_t* const positions = op.sequences.positions.as<int32_t>();
  auto* const at = cpu.scratch_of<int32_t>(tokens);
  std::fill_n(at, tokens, 0);
  for (int64_t n = 0; n < op.sequences.rows; n++) {
    if (offsets[n] < 0 || offsets[n + 1] < offsets[n] || offsets[n + 1] > tokens) {
      throw Error("ERR_ARGUMENT", "rope: offsets[" + std::to_string(n + 1) + "] must be in [" +
                                      std::to_string(offsets[n]) + ", " + std::to_string(tokens) + "], got " +
                                      std::to_string(offsets[n + 1]));
    }
    for (int32_t token = offsets[n]; token < offsets[n + 1]; token++) at[token] = positions[n] + token - offsets[n];
  }
  return at;
}

}  // namespace

void run(const Rope& op, Cpu& cpu) {
  const int64_t tokens = op.x.shape[0], pairs = op.inverse_frequencies.shape[0];
  const int32_t* const positions = positions_of_tokens(op, cpu);
  const float* const frequency = op.inverse_frequencies.as<float>();
  float* const tables = cpu.scratch_of<float>(cpu.pool->threads() * 2 * pairs);
  const auto turn = LINATTN_DISPATCH(cpu.level, turn_token);
  cpu.pool->run((tokens + kTaskTokens - 1) / kTaskTokens, [&](int64_t task, int thread) {
    float* const cosine = tables + thread * 2 * pairs;
    float* const sine = cosine + pairs;
    const int64_t end = std::min(tokens, (task + 1) * kTaskTokens);
    for (int64_t token = task * kTaskTokens; token < end; token++) {
      for (int64_t i = 0; i < pairs; i++) {
        const float angle = static_cast<float>(positions[token]) * frequency[i];
        cosine[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
        sine[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
      turn(op, token, cosine, sine);
    }
  });
}

}  // namespace linattn::cpu
