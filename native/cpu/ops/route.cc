// One row at a time in double: few values beside the products of the experts.
#include "ops/route.h"

#include <cmath>

#include "core/half.h"
#include "cpu/row-tasks.h"

namespace linattn::cpu {
namespace {

double to_double(float x) { return x; }
double to_double(bfloat16 x) { return to_float(x); }
double to_double(float16 x) { return to_float(x); }

// Scratch of one row: what its experts count, and what they are ranked by (NaN last; -2 once taken).
struct Scores {
  double *counts, *ranks;
};

template <class T>
void route_row(const Route& op, int64_t row, const Scores& scores) {
  const int64_t E = op.logits.shape[1], k = op.ids.shape[1];
  const T* logits = op.logits.row<T>(row);
  double top = -INFINITY;
  for (int64_t e = 0; e < E; e++) top = std::max(top, to_double(logits[e]));
  double total = 0;
  for (int64_t e = 0; e < E; e++) {
    const double x = to_double(logits[e]);
    const double count = op.score == RouteScore::kSigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x - top);
    scores.counts[e] = count;
    total += count;
  }
  if (op.score == RouteScore::kSoftmax) {
    for (int64_t e = 0; e < E; e++) scores.counts[e] /= total;
  }
  for (int64_t e = 0; e < E; e++) {
    // Ranked as float32, in which implementations compare them.
    const float rank = static_cast<float>(scores.counts[e]) + (op.bias ? op.bias.as<float>()[e] : 0);
    scores.ranks[e] = op.score == RouteScore::kSoftmax && !op.bias ? to_double(logits[e]) : rank;
  }
  int32_t* ids = op.ids.row<int32_t>(row);
  float* weights = op.weights.row<float>(row);
  double sum = 0;
  for (int64_t j = 0; j < k; j++) {
    int64_t best = -1;
    for (int64_t e = 0; e < E; e++) {
      bool taken = false;
      for (int64_t i = 0; i < j; i++) taken = taken || ids[i] == e;
      if (!taken && (best < 0 || scores.ranks[e] > scores.ranks[best] || std::isnan(scores.ranks[best]))) best = e;
    }
    ids[j] = static_cast<int32_t>(best);
    sum += scores.counts[best];
  }
  for (int64_t j = 0; j < k; j++) {
    const double count = scores.counts[ids[j]];
    weights[j] = static_cast<float>((op.renormalise ? count / sum : count) * op.scale);
  }
}

}  // namespace

void run(const Route& op, Cpu& cpu) {
  const int64_t E = op.logits.shape[1];
  auto* memory = cpu.scratch_of<double>(static_cast<size_t>(cpu.pool->threads() * 2 * E));
  with_float_type(op.logits.dtype, [&]<class T>(T) {
    for_rows(cpu, op.logits.shape[0], 16 * E, [&](int64_t begin, int64_t end, int thread) {
      double* own = memory + thread * 2 * E;
      for (int64_t row = begin; row < end; row++) route_row<T>(op, row, {own, own + E});
    });
  });
}

}  // namespace linattn::cpu
