// The mixer of a Gated DeltaNet layer and the norm in front of it, for one token, by one kernel.
#pragma once
#include "cuda/cuda.h"
#include "ops/causal-conv.h"
#include "ops/delta-gates.h"
#include "ops/linear-attention.h"
#include "ops/matmul.h"
#include "ops/rms-norm.h"

namespace linattn::cuda {

// Ops that follow one another: each reads what those before it have made.
struct MixerOps {
  const RmsNorm& norm;
  const Matmul& input;  // q | k | v | z | b | a
  const CausalConv& conv;
  const DeltaGates& gates;
  const LinearAttention& attention;
};

// False, and nothing done, where it does not serve.
bool mix_delta(const MixerOps& ops, Cuda& cuda);

}  // namespace linattn::cuda
