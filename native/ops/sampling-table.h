// How each sequence wants its tokens chosen: one row a slot in two tables, float32 [slots, 8] and int32 [slots, 8].
// lib/ops/sampling-table.ts writes the same layout.
#pragma once
#include <cstdint>

namespace linattn {

struct SamplingParams {
  float temperature;         // 0 = the greatest score
  float top_p;               // 1 = off
  float min_p;               // 0 = off
  float repetition_penalty;  // 1 = off
  float reserved[4];
};
static_assert(sizeof(SamplingParams) == 8 * sizeof(float));

struct SamplingIntParams {
  int32_t top_k;  // 0 = off
  uint32_t seed_low, seed_high;
  int32_t restricted;  // 1: only tokens of the slot's row of `allowed`
  int32_t reserved[4];
};
static_assert(sizeof(SamplingIntParams) == 8 * sizeof(int32_t));

// Tables with a bit a token, [slots, words]: token i is bit i % 32 of word i / 32.
constexpr int64_t token_words(int64_t vocab) { return (vocab + 31) / 32; }

}  // namespace linattn
