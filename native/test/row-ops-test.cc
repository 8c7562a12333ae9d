// The ops with independent rows, natively: the same bits with one thread and with three at every CPU level, and the
// levels agree. What the ops mean is tested in test/ops. Also the published vectors of Philox.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "core/philox.h"
#include "cpu/cpu.h"
#include "ops/activation.h"
#include "ops/add.h"
#include "ops/copy-slots.h"
#include "ops/delta-gates.h"
#include "ops/gated-activation.h"
#include "ops/layer-norm.h"
#include "ops/rms-norm.h"
#include "ops/rwkv-keys.h"
#include "ops/sample.h"
#include "ops/sampling-table.h"
#include "ops/weighted-sum.h"

namespace linattn::cpu {

void run(const Activation&, Cpu&);
void run(const Add&, Cpu&);
void run(const CopySlots&, Cpu&);
void run(const DeltaGates&, Cpu&);
void run(const GatedActivation&, Cpu&);
void run(const LayerNorm&, Cpu&);
void run(const RmsNorm&, Cpu&);
void run(const RwkvKeys&, Cpu&);
void run(const Sample&, Cpu&);
void run(const WeightedSum&, Cpu&);

namespace {

int failures = 0;

void expect(bool holds, const char* what, const char* level) {
  if (holds) return;
  failures++;
  std::printf("FAIL %s: %s\n", level, what);
}

// A tensor that owns its memory.
template <class T>
struct Owned {
  Owned(std::initializer_list<int64_t> shape, DType dtype) {
    tensor.dtype = dtype;
    tensor.rank = static_cast<int8_t>(shape.size());
    std::copy(shape.begin(), shape.end(), tensor.shape);
    tensor.stride0 = tensor.inner();
    values.resize(static_cast<size_t>(tensor.size()));
    tensor.data = values.data();
  }
  std::vector<T> values;
  Tensor tensor;
};

Owned<float> floats(std::initializer_list<int64_t> shape) { return {shape, DType::kFloat32}; }
Owned<int32_t> ints(std::initializer_list<int64_t> shape) { return {shape, DType::kInt32}; }

Owned<float> normal(std::initializer_list<int64_t> shape, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution(0, 2);
  Owned<float> owned = floats(shape);
  for (float& value : owned.values) value = distribution(generator);
  return owned;
}

struct Outputs {
  std::vector<std::vector<float>> numbers;  // an array an output
  std::vector<int32_t> tokens;
};

void append(Outputs& outputs, const Owned<float>& out) { outputs.numbers.push_back(out.values); }

void run_norms(Cpu& cpu, Outputs& outputs) {
  auto x = normal({61, 24, 67}, 1), gate = normal({61, 24, 67}, 2), weight = normal({67}, 3), bias = normal({67}, 4);
  auto out = floats({61, 24, 67}), sum = floats({61, 24, 67});
  for (const GateOrder order : {GateOrder::kAfter, GateOrder::kBefore}) {
    run(RmsNorm{x.tensor, weight.tensor, gate.tensor, gate.tensor, out.tensor, sum.tensor, 67, 1e-6, 0.22f, true, order,
                ActivationKind::kSilu},
        cpu);
    append(outputs, out);
    append(outputs, sum);
  }
  run(LayerNorm{x.tensor, weight.tensor, bias.tensor, out.tensor, 67, 1e-5}, cpu);
  append(outputs, out);
}

void run_elementwise(Cpu& cpu, Outputs& outputs) {
  auto x = normal({300, 331}, 5), y = normal({300, 331}, 6), a_log = normal({331}, 7), dt_bias = normal({331}, 8);
  auto out = floats({300, 331}), beta = floats({300, 331});
#define LINATTN_RUN(name)                                                                    \
  run(Activation{x.tensor, out.tensor, ActivationKind::name}, cpu);                          \
  append(outputs, out);                                                                      \
  run(GatedActivation{x.tensor, y.tensor, y.tensor, out.tensor, ActivationKind::name}, cpu); \
  append(outputs, out);
  LINATTN_ACTIVATIONS(LINATTN_RUN)
#undef LINATTN_RUN
  run(Add{x.tensor, y.tensor, Tensor{}, out.tensor, 0.3f}, cpu);
  append(outputs, out);
  run(DeltaGates{x.tensor, y.tensor, a_log.tensor, dt_bias.tensor, out.tensor, beta.tensor, 2}, cpu);
  append(outputs, out);
  append(outputs, beta);
  run(DeltaGates{x.tensor, Tensor{}, a_log.tensor, dt_bias.tensor, out.tensor, beta.tensor, 1, 0.1f, 2}, cpu);
  append(outputs, out);
  append(outputs, beta);
  auto pool = normal({3, 200001}, 9);
  auto from = ints({1}), to = ints({1}), copied = ints({1});
  to.values[0] = 2;
  run(CopySlots{pool.tensor, from.tensor, to.tensor, copied.tensor}, cpu);
  append(outputs, pool);
}

void run_heads(Cpu& cpu, Outputs& outputs) {
  auto r = normal({90, 5, 67}, 11), k = normal({90, 5, 67}, 12), a = normal({90, 5, 67}, 13);
  auto scale = normal({5, 67}, 14), mix = normal({5, 67}, 15), weight = normal({5, 67}, 16);
  auto read = floats({90, 5, 67}), write = floats({90, 5, 67}), key = floats({90, 5, 67}), bonus = floats({90, 5});
  run(RwkvKeys{r.tensor, k.tensor, a.tensor, scale.tensor, mix.tensor, weight.tensor, read.tensor, write.tensor,
               key.tensor, bonus.tensor},
      cpu);
  for (const auto* out : {&read, &write, &key, &bonus}) append(outputs, *out);
  run(Add{r.tensor, k.tensor, bonus.tensor, key.tensor, 1}, cpu);
  append(outputs, key);
  auto rows = normal({270, 131}, 17), weights = normal({90, 3}, 18), base = normal({90, 131}, 19);
  auto sums = floats({90, 131});
  run(WeightedSum{rows.tensor, weights.tensor, base.tensor, sums.tensor}, cpu);
  append(outputs, sums);
}

void run_sample(Cpu& cpu, Outputs& outputs) {
  constexpr int64_t kRows = 7, kVocab = 5003;
  auto logits = normal({kRows, kVocab}, 10), params = floats({kRows, 8});
  auto rows = ints({kRows}), positions = ints({kRows}), int_params = ints({kRows, 8}), sampled = ints({2, kRows});
  auto seen = ints({kRows, token_words(kVocab)});
  for (int32_t n = 0; n < kRows; n++) {
    const float settings[] = {0.4f * static_cast<float>(n), n % 2 ? 0.9f : 1.0f, n % 3 ? 0.01f : 0.0f, 1.2f};
    std::copy(settings, settings + 4, &params.values[static_cast<size_t>(n) * 8]);
    int_params.values[static_cast<size_t>(n) * 8] = n % 4 * 50;
    rows.values[static_cast<size_t>(n)] = n;
    positions.values[static_cast<size_t>(n)] = 1000 + n;
    seen.values[static_cast<size_t>(n * token_words(kVocab))] = 0x55555555;
  }
  run(Sample{logits.tensor, rows.tensor, positions.tensor, params.tensor, int_params.tensor, seen.tensor, Tensor{},
             sampled.tensor},
      cpu);
  outputs.tokens.assign(sampled.values.begin(), sampled.values.begin() + kRows);
  auto logprobs = floats({kRows});
  std::memcpy(logprobs.values.data(), &sampled.values[kRows], sizeof(float) * kRows);
  append(outputs, logprobs);
}

Outputs run_all(Level level, int threads) {
  Cpu cpu(level, threads);
  Outputs outputs;
  for (const auto part : {run_norms, run_elementwise, run_heads, run_sample}) {
    part(cpu, outputs);
    cpu.end_command();
  }
  return outputs;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

double relative_error(const std::vector<float>& actual, const std::vector<float>& wanted) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < wanted.size(); i++) {
    difference += std::pow(static_cast<double>(actual[i]) - static_cast<double>(wanted[i]), 2);
    size += std::pow(static_cast<double>(wanted[i]), 2);
  }
  return std::sqrt(difference / size);
}

void test_levels() {
  const Outputs baseline = run_all(Level::kBaseline, 1);
  const Level best = best_level();
  for (const Level level : {Level::kBaseline, Level::kAvx2, Level::kAvx512, Level::kAvx512Bf16, Level::kNeon}) {
    if (level != Level::kBaseline && level != best && (best == Level::kNeon || level > best)) continue;
    const Outputs one = run_all(level, 1), three = run_all(level, 3);
    double error = 0;
    for (size_t i = 0; i < one.numbers.size(); i++) {
      expect(same_bits(one.numbers[i], three.numbers[i]), "one thread and three give other bits", level_name(level));
      error = std::max(error, relative_error(one.numbers[i], baseline.numbers[i]));
    }
    expect(one.tokens == three.tokens, "one thread and three choose other tokens", level_name(level));
    expect(error < 5e-7, "the levels disagree", level_name(level));
    expect(one.tokens == baseline.tokens, "the levels choose other tokens", level_name(level));
    std::printf("%-10s differs from baseline by at most %.2g\n", level_name(level), error);
  }
}

void test_philox() {
  constexpr uint32_t kOnes = 0xffffffffu;
  using Words = std::array<uint32_t, 4>;
  expect(philox({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, "zeros", "philox");
  expect(philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
         "ones", "philox");
  expect(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
             Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1},
         "pi", "philox");
}

}  // namespace
}  // namespace linattn::cpu

int main() {
  linattn::cpu::test_philox();
  linattn::cpu::test_levels();
  std::printf(linattn::cpu::failures ? "%d failures\n" : "row ops: all checks passed\n", linattn::cpu::failures);
  return linattn::cpu::failures ? 1 : 0;
}
