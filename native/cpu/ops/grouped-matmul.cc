// The rows of an expert are gathered, and all experts are multiplied as one list of tasks by the kernels of matmul.
#include "ops/grouped-matmul.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/ops/product.h"
#include "cpu/row-index.h"
#include "cpu/row-tasks.h"

namespace linattn::cpu {
namespace {

struct Task {
  const Product* product;
  int64_t row0, row1, panel0, panel1;
};

// Contiguous rows in scratch.
Tensor rows_in(char* memory, DType dtype, int64_t first, int64_t rows, int64_t width) {
  Tensor t;
  t.data = memory + first * width * static_cast<int64_t>(dtype_bytes(dtype));
  t.dtype = dtype;
  t.rank = 2;
  t.shape[0] = rows;
  t.shape[1] = t.stride0 = width;
  return t;
}

}  // namespace

void run(const GroupedMatmul& op, Cpu& cpu) {
  const int64_t pairs = op.out.shape[0], experts = op.experts, per_row = op.ids.shape[1];
  const int64_t inputs = op.x.shape[1], outputs = op.out.shape[1];
  if (pairs == 0) return;
  // Stable: pair i of the op is row place[i] of the gathered ones, which begins[e] divides by expert.
  std::vector<int64_t> begins(static_cast<size_t>(experts) + 1), place(static_cast<size_t>(pairs));
  std::vector<int32_t> chosen(static_cast<size_t>(pairs));
  for (int64_t i = 0; i < pairs; i++) {
    chosen[static_cast<size_t>(i)] = op.ids.row<int32_t>(i / per_row)[i % per_row];
  }
  Tensor flat;
  flat.data = chosen.data();
  flat.stride0 = 1;
  for (int64_t i = 0; i < pairs; i++) {
    begins[static_cast<size_t>(row_index("groupedMatmul", "ids", flat, i, experts)) + 1]++;
  }
  for (size_t e = 0; e < static_cast<size_t>(experts); e++) begins[e + 1] += begins[e];
  std::vector<int64_t> next(begins.begin(), begins.end() - 1);
  for (size_t i = 0; i < place.size(); i++) place[i] = next[static_cast<size_t>(chosen[i])]++;

  const DType dtype = op.x.dtype;
  const auto bytes = static_cast<int64_t>(dtype_bytes(dtype));
  char* const gathered = cpu.scratch_of<char>(static_cast<size_t>(pairs * inputs * bytes));
  char* const made = cpu.scratch_of<char>(static_cast<size_t>(pairs * outputs * bytes));
  const int64_t share = op.x.shape[0] == pairs ? 1 : per_row;  // pairs that read one row of x
  for_rows(cpu, pairs, inputs, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      std::memcpy(gathered + place[static_cast<size_t>(i)] * inputs * bytes,
                  op.x.as<char>() + i / share * op.x.stride0 * bytes, static_cast<size_t>(inputs * bytes));
    }
  });

  const ProductKernels kernels = product_kernels(cpu.level, dtype);
  const WeightLayout layout(op.dtype, inputs, op.group);
  const int64_t panels = ceil_div(outputs, kPanel), pack_rows = 4 * kernels.tiling.rows;
  std::vector<Product> products;
  products.reserve(static_cast<size_t>(experts));
  std::vector<Task> packs, tasks;
  int64_t tile = 0;
  float* packed = nullptr;
  for (int64_t e = 0; e < experts; e++) {
    const int64_t first = begins[static_cast<size_t>(e)], rows = begins[static_cast<size_t>(e) + 1] - first;
    if (rows == 0) continue;
    products.push_back(product_of(layout, rows_in(gathered, dtype, first, rows, inputs),
                                  rows_in(made, dtype, first, rows, outputs), op.weights, op.scales, kernels.tiling));
    Product& p = products.back();
    if (!packed) packed = cpu.scratch_of<float>(static_cast<size_t>(pairs * p.words));
    p.packed = packed + first * p.words;
    p.weights += e * panels * layout.panel_bytes;
    if (p.scales) p.scales += e * panels * layout.groups * kPanel;
    for (int64_t row = 0; row < rows; row += pack_rows) {
      packs.push_back({&p, row, std::min(rows, row + pack_rows), 0, 0});
    }
    // As many tasks as if this expert were alone would be too many: they are shared among all.
    const ProductTask task = product_task(rows, panels, kernels.tiling, 1);
    tile = std::max(tile, task.rows * task.panels * kPanel);
    for (int64_t panel = 0; panel < panels; panel += task.panels) {
      for (int64_t row = 0; row < rows; row += task.rows) {
        tasks.push_back({&p, row, std::min(rows, row + task.rows), panel, std::min(panels, panel + task.panels)});
      }
    }
  }
  float* const tiles = cpu.scratch_of<float>(static_cast<size_t>(cpu.pool->threads() * tile));
  cpu.pool->run(static_cast<int64_t>(packs.size()), [&](int64_t i, int) {
    const Task& task = packs[static_cast<size_t>(i)];
    kernels.pack_rows(*task.product, task.row0, task.row1);
  });
  cpu.pool->run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int thread) {
    const Task& task = tasks[static_cast<size_t>(i)];
    kernels.multiply(*task.product, task.row0, task.row1, task.panel0, task.panel1, tiles + thread * tile);
  });
  for_rows(cpu, pairs, outputs, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      std::memcpy(op.out.as<char>() + i * op.out.stride0 * bytes,
                  made + place[static_cast<size_t>(i)] * outputs * bytes, static_cast<size_t>(outputs * bytes));
    }
  });
}

}  // namespace linattn::cpu
