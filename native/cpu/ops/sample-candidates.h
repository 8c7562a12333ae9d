// The tokens that a draw may still choose, in rising order of their ids, and the filters that take some away.
#pragma once
#include <bit>
#include <cstdint>

namespace linattn::cpu {

struct Candidates {
  float* scores;
  float* weights;  // e^(score - greatest score); null until they are known
  int32_t* ids;
  int64_t count;

  template <class Keep>
  void keep_if(Keep keep) {
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
      if (!keep(i)) continue;
      scores[kept] = scores[i];
      if (weights) weights[kept] = weights[i];
      ids[kept++] = ids[i];
    }
    count = kept;
  }
};

// Rises with x, for every x but NaN; -0 must not occur.
inline uint64_t order_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

struct Cut {
  uint64_t order;  // of the score at which the sum, taken from the greatest score down, reaches the target
  double before;   // the sum over greater scores
};

// Three radix passes over the bits of the scores instead of a sort. If rounding keeps the sum from reaching the target,
// the least score that has a weight.
template <class WeightOf>
Cut find_cut(const Candidates& c, WeightOf weight_of, double target) {
  Cut cut = {0, 0};
  int shift = 32;
  for (const int bits : {11, 11, 10}) {
    double bins[2048][2] = {};  // even and odd ones apart: equal scores in a row would wait for each other
    const uint64_t mask = (uint64_t{1} << bits) - 1;
    for (int64_t i = 0; i < c.count; i++) {
      const uint64_t order = order_of(c.scores[i]);
      if (order >> shift == cut.order) bins[order >> (shift - bits) & mask][i & 1] += weight_of(i);
    }
    uint64_t chosen = 0;
    double sum = cut.before;
    for (int64_t bin = static_cast<int64_t>(mask); bin >= 0; bin--) {
      const double here = bins[bin][0] + bins[bin][1];
      if (here == 0) continue;
      chosen = static_cast<uint64_t>(bin);
      cut.before = sum;
      sum += here;
      if (sum >= target) break;
    }
    shift -= bits;
    cut.order = cut.order << bits | chosen;
  }
  return cut;
}

// Scores below the k-th greatest go; those equal to it stay.
inline void keep_top_k(Candidates& c, int64_t k) {
  if (k >= c.count) return;
  const Cut cut = find_cut(c, [](int64_t) { return 1.0; }, static_cast<double>(k));
  c.keep_if([&](int64_t i) { return order_of(c.scores[i]) >= cut.order; });
}

// The smallest set of greatest scores whose weights reach p of all; of equal scores the lowest ids.
inline void keep_top_p(Candidates& c, double p) {
  double total = 0;
  for (int64_t i = 0; i < c.count; i++) total += static_cast<double>(c.weights[i]);
  const double target = p * total;
  const Cut cut = find_cut(c, [&](int64_t i) { return static_cast<double>(c.weights[i]); }, target);
  double sum = cut.before;
  bool any = false;
  c.keep_if([&](int64_t i) {
    const uint64_t order = order_of(c.scores[i]);
    if (order != cut.order) return order > cut.order;
    if (any && sum >= target) return false;
    any = true;
    sum += static_cast<double>(c.weights[i]);
    return true;
  });
}

// The greatest weight is 1.
inline void keep_min_p(Candidates& c, float p) {
  c.keep_if([&](int64_t i) { return c.weights[i] >= p; });
}

// The token at which the running sum of the weights passes the share `u` of the whole.
inline int32_t draw(const Candidates& c, double u) {
  double total = 0;
  for (int64_t i = 0; i < c.count; i++) total += static_cast<double>(c.weights[i]);
  const double target = u * total;
  int32_t last = c.ids[0];
  double sum = 0;
  for (int64_t i = 0; i < c.count; i++) {
    if (c.weights[i] == 0) continue;
    last = c.ids[i];
    sum += static_cast<double>(c.weights[i]);
    if (sum > target) break;
  }
  return last;
}

}  // namespace linattn::cpu
