#include "ops/sample.h"

#include <cmath>
#include <string>

#include "core/error.h"
#include "core/philox.h"
#include "cpu/cpu.h"
#include "cpu/ops/sample-candidates.h"
#include "cpu/simd.h"
#include "ops/sampling-table.h"

namespace linattn::cpu {
namespace {

struct LogitScan {
  float greatest;
  bool valid;  // neither NaN nor +inf
};

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/sample-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

enum class Outcome : uint8_t { kFine, kInvalid, kNoToken };

template <class Body>
void for_each_bit(uint32_t word, int64_t first, int64_t end, Body body) {
  for (; word; word &= word - 1) {
    const int64_t i = first + std::countr_zero(word);
    if (i < end) body(i);
  }
}

void penalize(const uint32_t* seen, float penalty, float* scores, int64_t vocab) {
  for (int64_t word = 0; word < token_words(vocab); word++) {
    for_each_bit(seen[word], word * 32, vocab,
                 [&](int64_t i) { scores[i] = scores[i] < 0 ? scores[i] * penalty : scores[i] / penalty; });
  }
}

void restrict_to(const uint32_t* allowed, float* scores, int64_t vocab) {
  for (int64_t word = 0; word < token_words(vocab); word++) {
    for_each_bit(~allowed[word], word * 32, vocab, [&](int64_t i) { scores[i] = -INFINITY; });
  }
}

int32_t choose(const Sample& op, Level level, int64_t row, const SamplingParams& params,
               const SamplingIntParams& int_params, Candidates c, float* weights) {
  const bool greedy = !(params.temperature > 0);
  const float greatest = LINATTN_DISPATCH(level, scale_scores)(c.scores, c.count, greedy ? 1 : params.temperature);
  if (greatest == -INFINITY) return -1;
  if (greedy) {
    int32_t id = 0;
    while (c.scores[id] != greatest) id++;
    return id;
  }
  for (int64_t i = 0; i < c.count; i++) c.ids[i] = static_cast<int32_t>(i);
  if (int_params.top_k > 0) keep_top_k(c, int_params.top_k);
  LINATTN_DISPATCH(level, weigh_scores)(c.scores, weights, c.count, greatest);
  c.weights = weights;
  if (params.top_p < 1) keep_top_p(c, static_cast<double>(params.top_p));
  if (params.min_p > 0) keep_min_p(c, params.min_p);
  const auto position = static_cast<uint32_t>(op.positions.as<int32_t>()[row]);
  const auto random = philox({position, 0, 0, 0}, {int_params.seed_low, int_params.seed_high});
  return draw(c, unit_interval(random[0], random[1]));
}

Outcome sample_row(const Sample& op, Level level, int64_t row, int32_t slot, float* scores, float* weights,
                   int32_t* ids) {
  const int64_t vocab = op.logits.shape[1];
  const auto* logits = op.logits.row<float>(row);
  const auto& params = *reinterpret_cast<const SamplingParams*>(op.params.row<float>(slot));
  const auto& int_params = *reinterpret_cast<const SamplingIntParams*>(op.int_params.row<int32_t>(slot));
  const LogitScan scan = LINATTN_DISPATCH(level, scan_logits)(logits, scores, vocab);
  if (!scan.valid) return Outcome::kInvalid;
  if (op.seen && params.repetition_penalty != 1) {
    penalize(op.seen.row<uint32_t>(slot), params.repetition_penalty, scores, vocab);
  }
  if (op.allowed && int_params.restricted) restrict_to(op.allowed.row<uint32_t>(slot), scores, vocab);
  const int32_t token = choose(op, level, row, params, int_params, {scores, nullptr, ids, vocab}, weights);
  if (token < 0) return Outcome::kNoToken;
  const double total = LINATTN_DISPATCH(level, sum_of_exp)(logits, vocab, scan.greatest);
  op.token()[row] = token;
  op.logprob()[row] =
      static_cast<float>(static_cast<double>(logits[token]) - static_cast<double>(scan.greatest) - std::log(total));
  return Outcome::kFine;
}

void check_outcomes(const Outcome* outcomes, int64_t rows) {
  for (int64_t row = 0; row < rows; row++) {
    if (outcomes[row] == Outcome::kFine) continue;
    throw Error("ERR_ARGUMENT", "sample: logits[" + std::to_string(row) + "] " +
                                    (outcomes[row] == Outcome::kInvalid ? "must hold no NaN and no +inf"
                                                                        : "must leave a token to choose"));
  }
}

}  // namespace

void run(const Sample& op, Cpu& cpu) {
  const int64_t rows = op.logits.shape[0], vocab = op.logits.shape[1], slots = op.params.shape[0];
  const auto* slot_of = op.rows.as<int32_t>();
  for (int64_t row = 0; row < rows; row++) {
    if (slot_of[row] >= -1 && slot_of[row] < slots) continue;
    throw Error("ERR_ARGUMENT", "sample: rows[" + std::to_string(row) + "] must be from -1 to " +
                                    std::to_string(slots - 1) + ", got " + std::to_string(slot_of[row]));
  }
  const auto threads = static_cast<size_t>(cpu.pool->threads()), size = static_cast<size_t>(vocab);
  auto* scores = cpu.scratch_of<float>(threads * size);
  auto* weights = cpu.scratch_of<float>(threads * size);
  auto* ids = cpu.scratch_of<int32_t>(threads * size);
  auto* outcomes = cpu.scratch_of<Outcome>(static_cast<size_t>(rows));
  cpu.pool->run(rows, [&](int64_t row, int thread) {
    outcomes[row] = Outcome::kFine;
    op.token()[row] = -1;
    op.logprob()[row] = 0;
    const int64_t own = thread * vocab;
    if (slot_of[row] < 0) return;
    outcomes[row] = sample_row(op, cpu.level, row, slot_of[row], scores + own, weights + own, ids + own);
  });
  check_outcomes(outcomes, rows);
}

}  // namespace linattn::cpu
