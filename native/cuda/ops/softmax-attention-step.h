// rmsNorm and rope of queries and of keys, and softmaxAttention of one token, by one kernel.
#pragma once
#include "cuda/ops/norm-rope.h"
#include "ops/softmax-attention.h"

namespace linattn::cuda {

// False, and nothing done, where it does not serve. No op before it, back to the last that ended before the first of
// them began, may write the pages.
bool step_attention(const NormedTurn& queries, const NormedTurn& keys, const SoftmaxAttention& op, Cuda& cuda);

}  // namespace linattn::cuda
