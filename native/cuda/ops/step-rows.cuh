// The table of sequences in kernels: one block, so that nothing is written before every row is known to be there.
#pragma once
#include <algorithm>

#include "cuda/cuda.h"
#include "cuda/device/platform.cuh"
#include "cuda/op-functions.h"
#include "ops/step-table.h"

namespace linattn::cuda {

constexpr int kMostStepThreads = 1024;

struct StepRows {
  const int32_t* slots;  // -1 = nothing
  int count;
  int32_t* table;
  int64_t stride;
  int table_rows;
  Fault* fault;

  __device__ StepRow& at(int slot) const { return *reinterpret_cast<StepRow*>(table + slot * stride); }

  // For all threads of the block.
  __device__ bool all_there() const {
    bool wrong = false;
    for (int n = static_cast<int>(threadIdx.x); n < count; n += static_cast<int>(blockDim.x)) {
      if (slots[n] < table_rows) continue;
      report(fault, FaultKind::kStepRow, FaultName::kRows, n, slots[n], 0, table_rows);
      wrong = true;
    }
    return !__syncthreads_or(wrong);
  }

  // body(n, row) for every row that is something.
  template <class Body>
  __device__ void for_each(Body body) const {
    for (int n = static_cast<int>(threadIdx.x); n < count; n += static_cast<int>(blockDim.x)) {
      if (slots[n] >= 0) body(n, at(slots[n]));
    }
  }
};

inline StepRows step_rows(const Tensor& rows, const Tensor& table, const Cuda& cuda) {
  return {rows.as<const int32_t>(),
          static_cast<int>(rows.shape[0]),
          table.as<int32_t>(),
          table.stride0,
          static_cast<int>(table.shape[0]),
          cuda.fault()};
}

inline unsigned step_threads(const StepRows& rows) {
  return static_cast<unsigned>(std::min<int64_t>(ceil_div(rows.count, kWarp) * kWarp, kMostStepThreads));
}

// What a step reported that no read has told yet: its effects must not count. For all threads of the block.
struct Findings {
  const Fault* faults;
  int count;

  __device__ bool any() const {
    bool found = false;
    for (int op = static_cast<int>(threadIdx.x); op < count; op += static_cast<int>(blockDim.x)) {
      found |= *static_cast<const volatile int32_t*>(&faults[op].kind) != 0;
    }
    return __syncthreads_or(found);
  }
};

inline Findings findings_of(const Cuda& cuda) { return {cuda.faults, kOpCount}; }

}  // namespace linattn::cuda
