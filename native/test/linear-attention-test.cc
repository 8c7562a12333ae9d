// linearAttention and causalConv at every level, on buffers of exactly their size so that sanitizers see each step
// beyond: rules, decays, dtypes, widths that fill no vector; and the same bits for any split and number of threads.
#include "ops/linear-attention.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/half.h"
#include "cpu/cpu.h"
#include "ops/causal-conv.h"
#include "test/check.h"

namespace linattn::cpu {

void run(const LinearAttention& op, Cpu& cpu);
void run(const CausalConv& op, Cpu& cpu);

namespace {

// Owns the memory of its tensors, each a block of its own.
class Arrays {
 public:
  explicit Arrays(uint32_t seed) : state_(seed) {}

  float next() {  // in [-1, 1)
    state_ = state_ * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int32_t>(state_)) * 0x1p-31f;
  }

  Tensor make(DType dtype, std::initializer_list<int64_t> shape, float low, float high) {
    Tensor tensor;
    tensor.dtype = dtype;
    for (const int64_t size : shape) tensor.shape[++tensor.rank] = size;
    tensor.rank++;
    tensor.stride0 = tensor.inner();
    const auto count = static_cast<size_t>(tensor.size());
    blocks_.emplace_back(new char[count * dtype_bytes(dtype)]);
    tensor.data = blocks_.back().get();
    for (size_t i = 0; i < count; i++) {
      const float x = low + (high - low) * (next() + 1) / 2;
      if (dtype == DType::kFloat32) tensor.as<float>()[i] = x;
      if (dtype == DType::kBFloat16) tensor.as<bfloat16>()[i] = to_bfloat16(x);
      if (dtype == DType::kFloat16) tensor.as<float16>()[i] = to_float16(x);
    }
    return tensor;
  }

  Tensor ints(std::initializer_list<int32_t> values) {
    Tensor tensor = make(DType::kInt32, {static_cast<int64_t>(values.size())}, 0, 0);
    std::memcpy(tensor.data, values.begin(), values.size() * sizeof(int32_t));
    return tensor;
  }

  Sequences one(int32_t tokens, int32_t read, int32_t write) {
    return {1, tokens, tokens, 0, ints({0, tokens}), ints({read}), ints({write}), ints({0})};
  }

 private:
  uint32_t state_;
  std::vector<std::unique_ptr<char[]>> blocks_;
};

Tensor rows(Tensor tensor, int64_t begin, int64_t end) {
  if (!tensor) return tensor;
  tensor.data = tensor.as<char>() + begin * tensor.stride0 * static_cast<int64_t>(dtype_bytes(tensor.dtype));
  tensor.shape[0] = end - begin;
  return tensor;
}

std::string bytes(const Tensor& tensor) {
  return {tensor.as<char>(), static_cast<size_t>(tensor.size()) * dtype_bytes(tensor.dtype)};
}

void check_finite(const Tensor& tensor, const std::string& what) {
  for (int64_t i = 0; i < tensor.size(); i++) {
    const float x = tensor.dtype == DType::kFloat32    ? tensor.as<float>()[i]
                    : tensor.dtype == DType::kBFloat16 ? to_float(tensor.as<bfloat16>()[i])
                                                       : to_float(tensor.as<float16>()[i]);
    CHECK_NOTE(std::isfinite(x), what);
  }
}

void test_linear_attention(Level level, LinearRule rule, LinearDecay decay, DType dtype, int64_t K, int64_t V) {
  constexpr int32_t T = 37, kCut = 18;
  constexpr int64_t H = 2, Hq = 4;
  const float unit = 1 / std::sqrt(static_cast<float>(K));
  const std::string what = std::string(level_name(level)) + ", rule " + std::to_string(static_cast<int>(rule)) +
                           ", decay " + std::to_string(static_cast<int>(decay)) + ", " + dtype_name(dtype) + ", " +
                           std::to_string(K) + " x " + std::to_string(V);
  Cpu one(level, 1), two(level, 2);
  Arrays arrays(static_cast<uint32_t>(K * 31 + V));
  LinearAttention op;
  op.rule = rule;
  op.decay = decay;
  op.q = arrays.make(dtype, {T, Hq, K}, -1, 1);
  op.k = arrays.make(dtype, {T, 1, K}, -unit, unit);
  op.v = arrays.make(dtype, {T, H, V}, -1, 1);
  if (decay == LinearDecay::kHead) op.log_decay = arrays.make(DType::kFloat32, {H}, -1, 0);
  if (decay == LinearDecay::kToken) op.log_decay = arrays.make(DType::kFloat32, {T, H}, -1, 0);
  if (decay == LinearDecay::kChannel) op.log_decay = arrays.make(dtype, {T, H, K}, -1, 0);
  if (decay == LinearDecay::kValue) op.log_decay = arrays.make(dtype, {T, H, V}, -1, 0);
  if (rule == LinearRule::kDelta) op.beta = arrays.make(DType::kFloat32, {T, H}, 0, 1);
  if (rule == LinearRule::kLowRank) {
    op.a = arrays.make(dtype, {T, H, K}, -unit, unit);
    op.b = arrays.make(dtype, {T, H, K}, -unit, unit);
  }
  op.state = arrays.make(DType::kFloat32, {2, H, V, K}, -1, 1);
  const bool sums = rule == LinearRule::kAdditive && decay != LinearDecay::kValue;
  if (sums) op.key_sum = arrays.make(DType::kFloat32, {2, H, K}, 1, 2);
  if (sums) op.denominator = arrays.make(DType::kFloat32, {T, Hq}, 0, 0);
  op.out = arrays.make(dtype, {T, Hq, V}, 0, 0);
  op.sequences = arrays.one(T, 0, 1);
  run(op, one);
  check_finite(op.out, what);
  const std::string out = bytes(op.out), state = bytes(op.state);
  std::memset(op.out.data, 0, out.size());
  run(op, two);
  CHECK_NOTE(bytes(op.out) == out && bytes(op.state) == state, what + ": two threads");

  std::memset(op.out.data, 0, out.size());
  for (const auto& [begin, end] : {std::pair{0, kCut}, std::pair{kCut, kCut + 1}, std::pair{kCut + 1, T}}) {
    LinearAttention part = op;
    for (Tensor* tensor : {&part.q, &part.k, &part.v, &part.beta, &part.a, &part.b, &part.out, &part.denominator}) {
      *tensor = rows(*tensor, begin, end);
    }
    if (decay != LinearDecay::kHead) part.log_decay = rows(op.log_decay, begin, end);
    part.sequences = arrays.one(end - begin, begin == 0 ? 0 : 1, 1);
    run(part, two);
  }
  CHECK_NOTE(bytes(op.out) == out && bytes(op.state) == state, what + ": three slices");
}

void test_causal_conv(Level level, DType dtype, int64_t C, int64_t W) {
  constexpr int32_t T = 9;
  const std::string what =
      std::string("conv ") + dtype_name(dtype) + ", " + std::to_string(C) + " x " + std::to_string(W);
  Cpu one(level, 1), two(level, 2);
  Arrays arrays(static_cast<uint32_t>(C));
  CausalConv op;
  op.x = arrays.make(dtype, {T, C}, -1, 1);
  op.weight = arrays.make(DType::kFloat32, {C, W}, -1, 1);
  op.bias = arrays.make(DType::kFloat32, {C}, -1, 1);
  op.state = arrays.make(DType::kFloat32, {2, C, W - 1}, -1, 1);
  op.out = arrays.make(dtype, {T, C}, 0, 0);
  op.sequences = arrays.one(T, 0, 1);
  op.silu = true;
  run(op, one);
  check_finite(op.out, what);
  const std::string out = bytes(op.out), state = bytes(op.state);
  std::memset(op.out.data, 0, out.size());
  for (int32_t t = 0; t < T; t++) {
    CausalConv part = op;
    part.x = rows(op.x, t, t + 1);
    part.out = rows(op.out, t, t + 1);
    part.sequences = arrays.one(1, t == 0 ? 0 : 1, 1);
    run(part, two);
  }
  CHECK_NOTE(bytes(op.out) == out && bytes(op.state) == state, what + ": token by token");
}

}  // namespace
}  // namespace linattn::cpu

int main() {
  using namespace linattn;
  using namespace linattn::cpu;
  const Level best = best_level();
  for (const Level level : {Level::kBaseline, Level::kAvx2, Level::kAvx512, Level::kNeon}) {
    if (level != Level::kBaseline && level != best && (best == Level::kNeon || level > best)) continue;
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      for (const auto& [K, V] : {std::pair{8, 8}, std::pair{24, 40}, std::pair{136, 16}, std::pair{64, 72}}) {
        for (int rule = 0; rule < 3; rule++) {
          for (int decay = 0; decay < (rule == 0 ? 5 : 4); decay++) {
            test_linear_attention(level, static_cast<LinearRule>(rule), static_cast<LinearDecay>(decay), dtype, K, V);
          }
        }
      }
      for (const auto& [C, W] : {std::pair{1, 4}, std::pair{19, 3}, std::pair{530, 1}, std::pair{64, 12}}) {
        test_causal_conv(level, dtype, C, W);
      }
    }
  }
  return report("linear-attention-test");
}
