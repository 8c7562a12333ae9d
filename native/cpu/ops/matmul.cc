// Products with packed weights. The activations are packed once a command; then tasks of some rows times some panels
// run in any order. How the work is cut changes no bit of the result.
#include "ops/matmul.h"

#include <algorithm>

#include "cpu/ops/product.h"
#include "cpu/row-tasks.h"
#include "cpu/simd.h"

namespace linattn::cpu {
namespace {

constexpr int64_t kChunk = 16;  // words of a row of packed activations that lie together: a cache line

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

}  // namespace

ProductTask product_task(int64_t rows, int64_t panels, const Tiling& tiling, int threads) {
  ProductTask task{std::min(rows, kTaskRows), std::min(panels, kTaskPanels)};
  const auto tasks = [&] { return ceil_div(rows, task.rows) * ceil_div(panels, task.panels); };
  while (tasks() < 4 * threads && task.panels > 1) task.panels = ceil_div(task.panels, 2);
  while (tasks() < 4 * threads && task.rows > 4 * tiling.rows) {
    task.rows = ceil_div(ceil_div(task.rows, 2), tiling.rows) * tiling.rows;
  }
  return task;
}

ProductKernels product_kernels(Level level, DType x) {
  ProductKernels kernels{};
  kernels.tiling = LINATTN_DISPATCH(level, tiling)();
  with_float_type(x, [&]<class T>(T) {
    kernels.pack_rows = LINATTN_DISPATCH(level, pack_rows<T>);
    kernels.multiply = LINATTN_DISPATCH(level, multiply<T>);
  });
  return kernels;
}

Product product_of(const WeightLayout& layout, const Tensor& x, const Tensor& out, const Tensor& weights,
                   const Tensor& scales, const Tiling& tiling) {
  Product p{layout,
            x,
            out,
            weights.as<uint8_t>(),
            scales.as<float>(),
            nullptr,
            out.shape[1],
            layout.dtype == DType::kBFloat16 ? tiling.pair_of_bfloat16 : 1,
            0,
            0,
            0,
            nullptr};
  p.used_words = layout.padded_depth / p.inputs_per_word;
  p.words = ceil_div(p.used_words, kChunk) * kChunk;
  // A single block of rows reads every panel once: nothing to keep in a cache.
  p.block_words = layout.groups > 1 ? layout.group : x.shape[0] <= tiling.rows ? p.words : kBlockWords;
  return p;
}

void run(const Matmul& op, Cpu& cpu) {
  const int64_t rows = op.x.shape[0];
  if (rows == 0) return;
  const ProductKernels kernels = product_kernels(cpu.level, op.x.dtype);
  const WeightLayout layout(op.dtype, op.x.shape[1], op.group);
  Product p = product_of(layout, op.x, op.out, op.weights, op.scales, kernels.tiling);
  p.bias = op.bias.as<float>();
  p.packed = cpu.scratch_of<float>(static_cast<size_t>(rows * p.words));
  const int64_t panels = ceil_div(p.outputs, kPanel);
  const ProductTask task = product_task(rows, panels, kernels.tiling, cpu.pool->threads());
  const int64_t tile = task.rows * task.panels * kPanel;
  float* const tiles = cpu.scratch_of<float>(static_cast<size_t>(cpu.pool->threads() * tile));

  const int64_t pack_rows = 4 * kernels.tiling.rows;
  cpu.pool->run(ceil_div(rows, pack_rows),
                [&](int64_t i, int) { kernels.pack_rows(p, i * pack_rows, std::min(rows, (i + 1) * pack_rows)); });
  const int64_t row_tasks = ceil_div(rows, task.rows);
  cpu.pool->run(row_tasks * ceil_div(panels, task.panels), [&](int64_t i, int thread) {
    const int64_t row = i % row_tasks * task.rows, panel = i / row_tasks * task.panels;
    kernels.multiply(p, row, std::min(rows, row + task.rows), panel, std::min(panels, panel + task.panels),
                     tiles + thread * tile);
  });
}

}  // namespace linattn::cpu
