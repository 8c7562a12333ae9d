// causalConv, deltaGates and linearAttention of a step of one token by one kernel.
#pragma once
#include "cuda/cuda.h"
#include "ops/causal-conv.h"
#include "ops/delta-gates.h"
#include "ops/linear-attention.h"

namespace linattn::cuda {

// False, and nothing done, where it does not serve.
bool step_delta(const CausalConv& conv, const DeltaGates& gates, const LinearAttention& op, Cuda& cuda);

}  // namespace linattn::cuda
