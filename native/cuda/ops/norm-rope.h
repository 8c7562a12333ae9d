// rmsNorm and rope of queries and of keys by one kernel.
#pragma once
#include "cuda/cuda.h"
#include "ops/rms-norm.h"
#include "ops/rope.h"

namespace linattn::cuda {

struct NormedTurn {
  const RmsNorm& norm;
  const Rope& rope;
};

// False, and nothing done, where it does not serve.
bool norm_and_turn(const NormedTurn& queries, const NormedTurn& keys, Cuda& cuda);

}  // namespace linattn::cuda
