// Products with packed weights. The activations are packed once a command; then tasks of some rows times some panels
// run in any order. How the work is cut changes no bit of the result.
#include "ops/matmul.h"

#include <algorithm>

#include "cpu/row-tasks.h"
#include "cpu/simd.h"
#include "cpu/weight-layout.h"

namespace linattn::cpu {
namespace {

constexpr int64_t kChunk = 16;  // words of a row of packed activations that lie together: a cache line

// How a level likes its work.
struct Tiling {
  int64_t rows;              // of a micro-kernel
  int64_t pair_of_bfloat16;  // bfloat16 activations in a word
};

struct Product {
  WeightLayout layout;
  Tensor x, out;
  const uint8_t* weights;
  const float* scales;  // may be null, as the bias
  const float* bias;
  int64_t outputs;
  int64_t inputs_per_word;
  int64_t used_words, words;  // of a row of packed activations: those that meet weights, and with padding
  int64_t block_words;        // summed up in registers before the next panel
  float* packed;
};

}  // namespace
}  // namespace linattn::cpu

#define LINATTN_KERNELS "cpu/ops/matmul-kernels.inc"
#include "cpu/for-each-level.inc"

namespace linattn::cpu {
namespace {

// Blocks that fit a second cache of 1 MiB: 264 rows of 384 words (396 KiB), sums of 4 panels (132 KiB), a panel (48
// KiB).
constexpr int64_t kTaskRows = 264;
constexpr int64_t kTaskPanels = 4;
constexpr int64_t kBlockWords = 384;

struct Task {
  int64_t rows, panels;
};

// Tasks small enough that every thread gets some.
Task task_of(int64_t rows, int64_t panels, const Tiling& tiling, int threads) {
  Task task{std::min(rows, kTaskRows), std::min(panels, kTaskPanels)};
  const auto tasks = [&] { return ceil_div(rows, task.rows) * ceil_div(panels, task.panels); };
  while (tasks() < 4 * threads && task.panels > 1) task.panels = ceil_div(task.panels, 2);
  while (tasks() < 4 * threads && task.rows > 4 * tiling.rows) {
    task.rows = ceil_div(ceil_div(task.rows, 2), tiling.rows) * tiling.rows;
  }
  return task;
}

template <class T>
void multiply_floats(const Matmul& op, Cpu& cpu) {
  const int64_t rows = op.x.shape[0], outputs = op.out.shape[1];
  if (rows == 0) return;
  const Tiling tiling = LINATTN_DISPATCH(cpu.level, tiling)();
  const WeightLayout layout(op.dtype, op.x.shape[1], op.group);
  Product p{layout,
            op.x,
            op.out,
            op.weights.as<uint8_t>(),
            op.scales.as<float>(),
            op.bias.as<float>(),
            outputs,
            op.dtype == DType::kBFloat16 ? tiling.pair_of_bfloat16 : 1,
            0,
            0,
            0,
            nullptr};
  p.used_words = layout.padded_depth / p.inputs_per_word;
  p.words = ceil_div(p.used_words, kChunk) * kChunk;
  // A single block of rows reads every panel once: nothing to keep in a cache.
  p.block_words = layout.groups > 1 ? layout.group : rows <= tiling.rows ? p.words : kBlockWords;
  p.packed = cpu.scratch_of<float>(static_cast<size_t>(rows * p.words));
  const int64_t panels = ceil_div(outputs, kPanel);
  const Task task = task_of(rows, panels, tiling, cpu.pool->threads());
  const int64_t tile = task.rows * task.panels * kPanel;
  float* const tiles = cpu.scratch_of<float>(static_cast<size_t>(cpu.pool->threads() * tile));

  const int64_t pack_rows = 4 * tiling.rows;
  const auto pack = LINATTN_DISPATCH(cpu.level, pack_rows<T>);
  cpu.pool->run(ceil_div(rows, pack_rows),
                [&](int64_t i, int) { pack(p, i * pack_rows, std::min(rows, (i + 1) * pack_rows)); });
  const auto multiply = LINATTN_DISPATCH(cpu.level, multiply<T>);
  const int64_t row_tasks = ceil_div(rows, task.rows);
  cpu.pool->run(row_tasks * ceil_div(panels, task.panels), [&](int64_t i, int thread) {
    const int64_t row = i % row_tasks * task.rows, panel = i / row_tasks * task.panels;
    multiply(p, row, std::min(rows, row + task.rows), panel, std::min(panels, panel + task.panels),
             tiles + thread * tile);
  });
}

}  // namespace

void run(const Matmul& op, Cpu& cpu) {
  with_float_type(op.x.dtype, [&]<class T>(T) { multiply_floats<T>(op, cpu); });
}

}  // namespace linattn::cpu
