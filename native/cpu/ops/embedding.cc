// Rows of a packed weight. A row lies across its panel, one cache line an input or two: slow for a gather, but it is
// little beside the products of a token, and the weight of a tied head is in memory once.
#include "ops/embedding.h"

#include "core/half.h"
#include "cpu/row-index.h"
#include "cpu/row-tasks.h"
#include "cpu/weight-layout.h"

namespace linattn::cpu {
namespace {

float to_float(float x) { return x; }
float to_float(int8_t x) { return x; }
using linattn::to_float;

template <class T>
void gather(const Embedding& op, Cpu& cpu) {
  const int64_t width = op.out.shape[1];
  const WeightLayout layout(op.dtype, width, op.group);
  const T* weights = op.weights.as<T>();
  const float* scales = op.scales.as<float>();
  for_rows(cpu, op.ids.shape[0], width * kPanel, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; t++) {
      const int64_t row = row_index("embedding", "ids", op.ids, t, op.rows);
      float* out = op.out.row<float>(t);
      for (int64_t k = 0; k < width; k++) out[k] = to_float(weights[layout.index(row, k)]);
      for (int64_t k = 0; scales && k < width; k++) out[k] *= scales[layout.scale_index(row, k)];
    }
  });
}

}  // namespace

void run(const Embedding& op, Cpu& cpu) {
  switch (op.dtype) {
    case DType::kBFloat16:
      return gather<bfloat16>(op, cpu);
    case DType::kFloat16:
      return gather<float16>(op, cpu);
    case DType::kInt8:
      return gather<int8_t>(op, cpu);
    default:
      return gather<float>(op, cpu);
  }
}

}  // namespace linattn::cpu
