// matmul, packWeight and embedding at every CPU level of this machine: against double precision, and bits that depend
// neither on the rows of the call nor on threads. Memory is exactly as large as the ops may touch, for the sanitizers.
// What the ops mean is tested in test/ops.
#include "ops/matmul.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "core/half.h"
#include "cpu/cpu.h"
#include "cpu/peaks.h"
#include "cpu/weight-layout.h"
#include "ops/embedding.h"
#include "ops/pack-weight.h"
#include "test/check.h"

namespace linattn::cpu {

void run(const Embedding&, Cpu&);
void run(const Matmul&, Cpu&);
void run(const PackWeight&, Cpu&);

namespace {

template <class T>
Tensor tensor_of(std::vector<T>& values, DType dtype, std::initializer_list<int64_t> shape) {
  Tensor tensor;
  tensor.data = values.data();
  tensor.dtype = dtype;
  tensor.rank = 0;
  for (const int64_t size : shape) tensor.shape[tensor.rank++] = size;
  tensor.stride0 = tensor.inner();
  return tensor;
}

std::vector<float> normal(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = distribution(generator);
  return values;
}

struct Case {
  DType dtype;
  int64_t group, inputs, outputs;
};

struct Packed {
  std::vector<uint8_t> data;
  std::vector<float> scales;
  std::vector<float> values;  // [N, K], as embedding reads them back
};

Packed pack(const Case& c, Cpu& cpu) {
  const WeightLayout layout(c.dtype, c.inputs, c.group);
  const int64_t panels = ceil_div(c.outputs, kPanel);
  Packed packed;
  packed.data.resize(static_cast<size_t>(panels * layout.panel_bytes));
  if (c.dtype == DType::kInt8) packed.scales.resize(static_cast<size_t>(panels * layout.groups * kPanel));
  std::vector<float> source = normal(c.outputs * c.inputs, 7);
  PackWeight op;
  op.weights = tensor_of(packed.data, DType::kUInt8, {static_cast<int64_t>(packed.data.size())});
  if (c.dtype == DType::kInt8) op.scales = tensor_of(packed.scales, DType::kFloat32, {panels, layout.groups, kPanel});
  op.dtype = c.dtype;
  op.group = c.group;
  const int64_t half = c.outputs / 2;
  for (const auto& [begin, end] : {std::pair{half, c.outputs}, std::pair{int64_t{0}, half}}) {
    std::vector<float> part(source.begin() + begin * c.inputs, source.begin() + end * c.inputs);
    op.source = tensor_of(part, DType::kFloat32, {end - begin, c.inputs});
    op.row = begin;
    run(op, cpu);
  }
  packed.values.resize(source.size());
  std::vector<int32_t> ids;
  for (int32_t n = 0; n < c.outputs; n++) ids.push_back(n);
  run(Embedding{tensor_of(ids, DType::kInt32, {c.outputs}), op.weights, op.scales,
                tensor_of(packed.values, DType::kFloat32, {c.outputs, c.inputs}), c.dtype, c.group, c.outputs},
      cpu);
  cpu.end_command();
  double error = 0, size = 0;
  for (size_t i = 0; i < source.size(); i++) {
    error += std::pow(packed.values[i] - source[i], 2);
    size += std::pow(source[i], 2);
  }
  const double limit = c.dtype == DType::kFloat32 ? 0 : c.dtype == DType::kInt8 ? 0.02 : 0.004;
  CHECK_NOTE(std::sqrt(error / size) <= limit, dtype_name(c.dtype));
  return packed;
}

std::vector<float> multiply(const Case& c, Packed& packed, std::vector<float> x, int64_t rows, Cpu& cpu) {
  const WeightLayout layout(c.dtype, c.inputs, c.group);
  std::vector<float> out(static_cast<size_t>(rows * c.outputs));
  Matmul op;
  op.x = tensor_of(x, DType::kFloat32, {rows, c.inputs});
  op.weights = tensor_of(packed.data, DType::kUInt8, {static_cast<int64_t>(packed.data.size())});
  if (c.dtype == DType::kInt8) {
    op.scales = tensor_of(packed.scales, DType::kFloat32, {ceil_div(c.outputs, kPanel), layout.groups, kPanel});
  }
  op.out = tensor_of(out, DType::kFloat32, {rows, c.outputs});
  op.dtype = c.dtype;
  op.group = c.group;
  run(op, cpu);
  cpu.end_command();
  return out;
}

void test_product(Level level, const Case& c) {
  constexpr int64_t kRows = 70, kFrom = 9;
  const std::string note = std::string(level_name(level)) + " " + dtype_name(c.dtype) + " K " +
                           std::to_string(c.inputs) + " N " + std::to_string(c.outputs) + " group " +
                           std::to_string(c.group);
  Cpu cpu(level, 2), alone(level, 1);
  Packed packed = pack(c, cpu);
  const std::vector<float> x = normal(kRows * c.inputs, 8);
  const std::vector<float> out = multiply(c, packed, x, kRows, cpu);
  double error = 0, size = 0;
  for (int64_t t = 0; t < kRows; t++) {
    for (int64_t n = 0; n < c.outputs; n++) {
      double exact = 0;
      for (int64_t k = 0; k < c.inputs; k++) {
        float value = x[static_cast<size_t>(t * c.inputs + k)];
        if (c.dtype == DType::kBFloat16) value = to_float(to_bfloat16(value));
        exact += static_cast<double>(value) * packed.values[static_cast<size_t>(n * c.inputs + k)];
      }
      error += std::pow(out[static_cast<size_t>(t * c.outputs + n)] - exact, 2);
      size += exact * exact;
    }
  }
  CHECK_NOTE(std::sqrt(error / size) < 1e-6, note);
  for (const int64_t rows : {1, 2, 3, 5, 6, 7, 11, 12, 13, 16, 31}) {
    const std::vector<float> part(x.begin() + kFrom * c.inputs, x.begin() + (kFrom + rows) * c.inputs);
    const std::vector<float> some = multiply(c, packed, part, rows, rows % 2 ? alone : cpu);
    CHECK_NOTE(std::memcmp(some.data(), out.data() + kFrom * c.outputs, some.size() * sizeof(float)) == 0,
               note + ": other bits in " + std::to_string(rows) + " rows");
  }
}

void test_level(Level level) {
  constexpr std::pair<int64_t, int64_t> kSizes[] = {{1, 1}, {33, 31}, {64, 64}, {513, 65}, {1000, 33}, {1537, 160}};
  for (const auto& [inputs, outputs] : kSizes) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kInt8}) {
      test_product(level, {dtype, 0, inputs, outputs});
    }
    for (const int64_t group : {32, 96}) test_product(level, {DType::kInt8, group, inputs, outputs});
  }
  Cpu cpu(level, 2);
  std::vector<float> values(100'003, 1.0f);
  CHECK(multiply_add_peak(cpu) > 0);
  CHECK((dot_bfloat16_peak(cpu) > 0) == (level == Level::kAvx512Bf16));
  CHECK(read_bandwidth(cpu, values.data(), values.size()) > 0);
}

}  // namespace
}  // namespace linattn::cpu

int main() {
  using linattn::cpu::Level;
  const Level best = linattn::cpu::best_level();
  for (const Level level : {Level::kBaseline, Level::kAvx2, Level::kAvx512, Level::kAvx512Bf16, Level::kNeon}) {
    const bool runs = level == Level::kBaseline || level == best || (best != Level::kNeon && level < best);
    if (runs) linattn::cpu::test_level(level);
  }
  return linattn::report("matmul");
}
