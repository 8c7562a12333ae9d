// causalConv, deltaGates and linearAttention of a step of one token by one kernel.
#pragma once
#include "cuda/cuda.h"
#include "ops/causal-conv.h"
#include "ops/delta-gates.h"
#include "ops/linear-attention.h"

namespace linattn::cuda {

// Whether it serves.
bool delta_step_serves(const CausalConv& conv, const DeltaGates& gates, const LinearAttention& op, Cuda& cuda);

// False, and nothing done, where it does not.
bool step_delta(const CausalConv& conv, const DeltaGates& gates, const LinearAttention& op, Cuda& cuda);

}  // namespace linattn::cuda
